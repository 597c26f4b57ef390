// Runs the shared ChromaDB, and checks that workers can reach it.

import { readFileSync } from "node:fs";
import { request } from "node:http";
import { createConnection, type Socket } from "node:net";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { sharedStatus } from "../nsenter/container.ts";
import { originHeader } from "../std/origin.ts";
import { chownTree } from "../std/owned.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { listenerUsers } from "../std/socket-table.ts";
import type { ChildSpec } from "./supervisor.ts";

/** In the parent's own network namespace, which workers do not share. */
export const chromadbAddress = "127.0.0.1";

const directory = "/data/chromadb";

const user = { uid: serviceUsers.chromadb, gid: serviceUsers.chromadb };

export function chromadbChild(port: number, logFile: string): ChildSpec {
  return {
    name: "chromadb",
    // Killed first when the parent runs out of memory: proc(5).
    command: [
      "bash",
      "-c",
      'echo 1000 >/proc/self/oom_score_adj; exec "$@"',
      "bash",
      "deno",
      "run",
      "--allow-all",
      "--no-config",
      "--no-lock",
      "--quiet",
      "/opt/chromadb/chroma.mjs",
      "run",
      "--path",
      directory,
      "--host",
      chromadbAddress,
      "--port",
      String(port),
    ],
    env: {
      ANONYMIZED_TELEMETRY: "False",
      DENO_DIR: "/tmp/chromadb/deno",
      HOME: "/tmp/chromadb",
    },
    user,
    // Also its files from before it had a user of its own, and migrated ones.
    prepare: () => chownTree(directory, user),
    logFile,
  };
}

/**
 * Why workers cannot reach ChromaDB; undefined if they can. Runs in the parent.
 * Checks the user of each listener here, and who listens in the workers' namespace: any
 * process could send a valid answer.
 */
export async function chromadbFault(
  { home, settings }: Pick<Instance, "home" | "settings">,
  checkListeners = listenerFault,
): Promise<string | undefined> {
  const port = settings.CHROMADB_PORT;
  const fault = await checkListeners(port);
  if (fault !== undefined) return fault;
  try {
    const status = await heartbeat({ service: home.service(port) });
    if (status !== 200) return `its heartbeat has status ${status}`;
  } catch (error) {
    return `its heartbeat fails: ${messageOf(error)}`;
  }
  try {
    const { open, taken } = await sharedStatus(home);
    if (taken.includes(port)) return `a worker has taken port ${port}`;
    if (!open.includes(port)) return `port ${port} is not open to workers`;
  } catch (error) {
    return `nsenter does not answer: ${messageOf(error)}`;
  }
  return undefined;
}

/** Whether other users listen, or nobody. */
export async function listenerFault(port: number): Promise<string | undefined> {
  // First, since the kernel takes 8 ms of CPU time to list the parent's sockets: it looks
  // through those of the whole machine.
  if (!await accepts(port)) return "it does not listen";
  const users = listenerUsers(readFileSync("/proc/net/tcp", "utf8"), port);
  if (users.length === 0) return "it does not listen";
  const other = users.find((user) => user !== serviceUsers.chromadb);
  return other === undefined
    ? undefined
    : `user ${other} listens on port ${port} of the parent`;
}

/** Whether anything listens on the port; true also if it is too busy to accept. */
function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host: chromadbAddress, port });
    const end = (accepted: boolean) => {
      resolve(accepted);
      socket.destroy();
    };
    socket.setTimeout(2000, () => end(true));
    socket.on("connect", () => end(true));
    socket.on("error", () => end(false));
  });
}

/** Whether ChromaDB answers in the parent, whether or not workers can reach it. */
export async function chromadbAnswers(port: number): Promise<boolean> {
  const to = { host: chromadbAddress, port };
  return await heartbeat(to).catch(() => undefined) === 200;
}

/** Asks ChromaDB itself, or as nsenter asks the socket of its service. */
function heartbeat(
  to: { service: string } | { host: string; port: number },
): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const place = "service" in to
      ? { createConnection: () => connectAsShared(to.service) }
      : { ...to, agent: false };
    const asked = request(
      { ...place, path: "/api/v2/heartbeat", headers: { connection: "close" } },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    );
    asked.setTimeout(2000, () => asked.destroy(new Error("no answer in 2 s")));
    asked.on("error", reject);
    asked.end();
  });
}

function connectAsShared(path: string): Socket {
  const socket = createConnection(path);
  socket.write(originHeader(null));
  return socket;
}
