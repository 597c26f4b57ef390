// Which ports the forwarder serves, asked from another process.

import * as v from "valibot";
import type { HomePaths } from "../instance/paths.ts";
import { Client } from "../std/socket-lines.ts";

const statusSchema = v.object({
  /** Ports of 127.0.0.1 in the workers' namespace that it listens on. */
  serves: v.array(v.number()),
  /** Ports that somebody in a worker has. */
  taken: v.array(v.number()),
  /** Whether a connection can still be given a port of its own. */
  portsLeft: v.boolean(),
});

export type ForwarderStatus = v.InferOutput<typeof statusSchema>;
export type ForwarderPorts = Omit<ForwarderStatus, "portsLeft">;

/** Throws where it is out of reach. */
export async function askForwarder(
  { forwarderSocket }: Pick<HomePaths, "forwarderSocket">,
): Promise<ForwarderStatus> {
  const client = new Client(forwarderSocket);
  try {
    return v.parse(statusSchema, await client.ask({}, 2000));
  } finally {
    client.close();
  }
}
