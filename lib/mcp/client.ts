// Client for the MCP gateway's control socket. Does not load the MCP SDK.

import { readFileSync } from "node:fs";
import * as v from "valibot";
import { Failure, messageOf } from "../std/errors.ts";
import { runProgram } from "../std/program.ts";
import type { HomePaths } from "../instance/paths.ts";
import { Client } from "../std/socket-lines.ts";

/** A reload waits for processes to exit. */
const timeoutMs = { status: 5000, stop: 5000, reload: 20_000 };

const latency = v.nullable(v.number());

const statusSchema = v.object({
  pid: v.number(),
  /** The port for tunnels, if unix sockets do not work; otherwise null. */
  tunnels: v.nullable(v.number()),
  servers: v.array(v.object({
    name: v.string(),
    /** "missing": its command was not found. */
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

export const requestSchema = v.object({
  op: v.picklist(["status", "reload", "stop"]),
});

type GatewayStatus = v.InferOutput<typeof statusSchema>;
export type ServedStatus = GatewayStatus["servers"][number];

/** The gateway's status, for "reload" after it; undefined if it is not running. */
export async function askGateway(
  home: HomePaths,
  op: "status" | "reload",
): Promise<GatewayStatus | undefined> {
  const answer = await ask(home, op);
  if (answer === undefined) return undefined;
  const status = v.safeParse(statusSchema, answer);
  if (status.success) return status.output;
  throw new Failure(
    "failed",
    "Cannot talk to the MCP gateway: it has another version",
    {
      hint: "Restart it: claudy mcp restart",
      cause: new v.ValiError(status.issues),
    },
  );
}

/** Asks the gateway to exit; returns whether it was running. */
export async function endGateway(home: HomePaths): Promise<boolean> {
  return await ask(home, "stop") !== undefined;
}

async function ask(
  home: HomePaths,
  op: keyof typeof timeoutMs,
): Promise<unknown> {
  const client = new Client(home.mcpControl);
  try {
    return await client.ask({ op }, timeoutMs[op]);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ECONNREFUSED") return undefined;
    if (code === "EINVAL") {
      throw new Failure("usage", `Too long for a socket: ${home.mcpControl}`, {
        hint: "Give HAL9000_HOME a shorter path.",
      });
    }
    if (error instanceof Failure) throw error;
    const pid = await livePid(home);
    // A process that it started may still have its sockets.
    if (pid === undefined) return undefined;
    throw new Failure("failed", `The MCP gateway: ${messageOf(error)}`, {
      cause: error,
      hint: `Kill it; it restarts automatically if enabled: kill -9 ${pid}`,
    });
  } finally {
    client.close();
  }
}

/** Of the gateway that was started last, if it is there, and no other process. */
async function livePid({ mcpPid }: HomePaths): Promise<number | undefined> {
  try {
    const pid = Number(readFileSync(mcpPid, "utf8"));
    const { stdout } = await runProgram(["ps", "-o", "args=", "-p", `${pid}`]);
    return stdout.includes("mcp-gateway") ? pid : undefined;
  } catch {
    return undefined;
  }
}
