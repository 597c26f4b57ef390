// Asks the parent for the ChromaDB database of a worker's project.

import * as v from "valibot";
import { Client } from "../std/socket-lines.ts";

export const databaseRequest = v.object({
  /** Id of the worker's container. */
  container: v.string(),
});

const databaseAnswer = v.object({
  /** Null for a worker without a project, such as an unclaimed one. */
  database: v.nullable(v.string()),
});

export type DatabaseAnswer = v.InferOutput<typeof databaseAnswer>;

/** The worker's database, which exists then. Throws if the parent does not answer. */
export async function askDatabase(
  socket: string,
  container: string,
): Promise<string | null> {
  const client = new Client(socket);
  try {
    const answer = await client.ask({ container }, 5000);
    return v.parse(databaseAnswer, answer).database;
  } finally {
    client.close();
  }
}
