// Asks the forwarder which ports it serves.

import type { Duplex } from "node:stream";
import * as v from "valibot";
import { Client } from "../std/socket-lines.ts";

const statusSchema = v.object({
  /** Ports of 127.0.0.1 in the workers' namespace that it listens on. */
  serves: v.array(v.number()),
  /** Ports that a process in a worker occupies. */
  taken: v.array(v.number()),
  /** Whether an ephemeral port is left for a new connection. */
  portsLeft: v.boolean(),
});

export type ForwarderStatus = v.InferOutput<typeof statusSchema>;
export type ForwarderPorts = Omit<ForwarderStatus, "portsLeft">;

/** Throws if the forwarder does not answer. */
export async function askForwarder(
  socket: string | Duplex,
): Promise<ForwarderStatus> {
  const client = new Client(socket);
  try {
    return v.parse(statusSchema, await client.ask({}, 2000));
  } finally {
    client.close();
  }
}
