// The shared ChromaDB: how it is run, and whether it answers.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { ChildSpec } from "./supervisor.ts";

/** Workers share the namespace; nobody outside it is served. */
const address = "127.0.0.1";

export function chromadbChild(port: number, logFile: string): ChildSpec {
  return {
    name: "chromadb",
    command: [
      "deno",
      "run",
      "--allow-all",
      "--no-config",
      "--no-lock",
      "--quiet",
      "/opt/chromadb/chroma.mjs",
      "run",
      "--path",
      "/data/chromadb",
      "--host",
      address,
      "--port",
      String(port),
    ],
    env: { ANONYMIZED_TELEMETRY: "False" },
    logFile,
  };
}

/**
 * Whether our ChromaDB answers. Who answers at the port could be any worker, so
 * the process `pid` must hold the socket that listens there.
 */
export async function chromadbServes(
  port: number,
  pid: number | undefined,
): Promise<boolean> {
  if (pid === undefined || !holdsListener(pid, port)) return false;
  try {
    const response = await fetch(
      `http://${address}:${port}/api/v2/heartbeat`,
      { signal: AbortSignal.timeout(2000) },
    );
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}

function holdsListener(pid: number, port: number): boolean {
  const inode = listenerInode(readFileSync("/proc/net/tcp", "utf8"), port);
  if (inode === undefined) return false;
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) =>
      readlinkSync(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`
    );
  } catch {
    return false; // it ended, or closed a file, in between
  }
}

/**
 * The inode of the socket that listens on loopback at `port`, from the text of
 * /proc/net/tcp, proc_net(5): local address in its second column, state in the
 * fourth (0A: listening), inode in the tenth.
 */
export function listenerInode(table: string, port: number): string | undefined {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table.split("\n")
    .map((line) => line.trim().split(/\s+/))
    .find((row) => row[1] === local && row[3] === "0A")?.[9];
}
