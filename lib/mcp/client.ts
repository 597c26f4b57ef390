// The gateway, asked from another process. Loads nothing of the SDK.

import * as v from "valibot";
import { Failure, messageOf } from "../errors.ts";
import type { HomePaths } from "../paths.ts";
import { Client } from "../pool/lines.ts";

const latency = v.nullable(v.number());

const statusSchema = v.object({
  pid: v.number(),
  /** The port that tunnels are opened at, where sockets do not reach. */
  tunnels: v.nullable(v.number()),
  servers: v.array(v.object({
    name: v.string(),
    /** Missing: its command is not to be had. */
    state: v.picklist(["starting", "ready", "failing", "missing"]),
    port: v.number(),
    isolation: v.picklist(["session", "shared"]),
    sessions: v.number(),
    processes: v.number(),
    calls: v.number(),
    errors: v.number(),
    latencyMs: v.object({ p50: latency, p99: latency }),
    lastError: v.nullable(v.string()),
  })),
});

export const requestSchema = v.object({ op: v.picklist(["status", "stop"]) });

export type GatewayStatus = v.InferOutput<typeof statusSchema>;
export type ServedStatus = GatewayStatus["servers"][number];

/** Asks the gateway; undefined where none runs. */
export async function askGateway(
  home: HomePaths,
  op: "status" | "stop",
): Promise<GatewayStatus | undefined> {
  const client = new Client(home.mcpControl);
  try {
    return v.parse(statusSchema, await client.ask({ op }, 5000));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ECONNREFUSED") return undefined;
    throw new Failure("failed", `The MCP gateway: ${messageOf(error)}`, {
      cause: error,
      hint: "Start it anew: mcp-gateway restart",
    });
  } finally {
    client.close();
  }
}
