// The pool, asked from outside of its process. Loads nothing of Docker: a claim
// is over before that would be.

import { existsSync, renameSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import * as v from "valibot";
import { Failure } from "../errors.ts";
import { workerImage } from "../images/recipes.ts";
import type { HomePaths } from "../paths.ts";
import type { Settings } from "../settings.ts";
import type { SpawnRequest } from "../spawn.ts";
import { Client } from "./lines.ts";
import {
  type ClaimReply,
  claimReplySchema,
  type ClaimRequest,
  type PoolStatus,
  poolStatusSchema,
  protocolVersion,
  type Request,
} from "./protocol.ts";

/** What says that nobody listens at a socket. */
const absent = ["ENOENT", "ECONNREFUSED", "EACCES", "ECONNRESET"];

/** A claim that takes longer is no better than a cold spawn. */
const claimMs = 3000;

/** Others wait for containers. */
const commandMs = 30_000;

type Body = Request extends infer R
  ? R extends Request ? Omit<R, "version"> : never
  : never;

/**
 * A worker of the pool; else why there is none. A claim that the manager has not
 * answered is asked for again, as the same one.
 */
export async function claim(
  home: HomePaths,
  request: Omit<ClaimRequest, "op" | "id">,
): Promise<ClaimReply> {
  const id = crypto.randomUUID();
  const deadline = Date.now() + claimMs;
  while (existsSync(home.poolSocket)) {
    const client = new Client(home.poolSocket);
    try {
      const reply = v.parse(
        claimReplySchema,
        await client.ask(
          message({ op: "claim", id, ...request }),
          deadline - Date.now(),
        ),
      );
      if (reply.start === "warm" && !keep(home, reply.worker.id)) {
        return { start: "cold", reason: "the claim came too late" };
      }
      return reply;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Somebody else's answer, or another version's.
      if (code === undefined) return { start: "cold", reason: reasonOf(error) };
      if (Date.now() > deadline || code === "ENOENT" || code === "EACCES") {
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    } finally {
      client.close();
    }
  }
  return { start: "cold", reason: "no pool runs" };
}

/**
 * A claim is a loan until its file is renamed. The manager takes a loan back by
 * removing that file: one of both wins, whatever is killed in the meantime.
 */
function keep(home: HomePaths, container: string): boolean {
  try {
    renameSync(home.loan(container), home.claim(container));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/** Why no warm worker can be what is asked for, undefined where one might. */
export function unfitReason(
  request: SpawnRequest,
  env: NodeJS.ProcessEnv,
): string | undefined {
  const reasons: [boolean | undefined, string][] = [
    [request.standalone, "a network of its own"],
    [request.limited === false, "no limits"],
    [request.keep, "it is to stay when it has ended"],
    [(request.mounts ?? []).length > 0, "further mounts"],
    [(request.env ?? []).length > 0, "variables"],
    [request.command !== undefined, "a command of its own"],
    // The parent does not know where it would be relative to.
    [
      env["HAL9000_ROLE"] === "parent" && !isAbsolute(request.directory),
      "a relative path",
    ],
  ];
  return reasons.find(([applies]) => applies)?.[1];
}

/** The claim for a spawn. */
export function claimRequest(
  settings: Settings,
  request: SpawnRequest,
): Omit<ClaimRequest, "op" | "id"> {
  return {
    instance: settings.HAL9000_PREFIX,
    directory: resolve(request.cwd, request.directory),
    ...(request.name === undefined ? {} : { name: request.name }),
    ...(request.session === undefined ? {} : { session: request.session }),
    ...(request.once ? { once: true } : {}),
    image: request.image ?? workerImage(settings),
    ...(request.imageId === undefined ? {} : { imageId: request.imageId }),
    allowAnyPath: request.allowAnyPath ?? false,
    limits: {
      memoryBytes: settings.WORKER_MEMORY,
      cpus: settings.WORKER_CPUS,
      pids: settings.WORKER_PIDS_LIMIT,
    },
  };
}

function reasonOf(error: unknown): string {
  return error instanceof Failure
    ? error.message
    : "the pool's answer cannot be read";
}

/** Tells the pool of a spawn that could not be a claim; it need not hear. */
export async function tellCold(socket: string, reason: string): Promise<void> {
  await askPool(socket, { op: "cold", reason }, 500).catch(() => {});
}

/** Throws a `notFound` Failure where no pool runs. */
export async function askPool(
  socket: string,
  body: Body,
  timeoutMs = commandMs,
): Promise<unknown> {
  const client = new Client(socket);
  try {
    return await client.ask(message(body), timeoutMs);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined || !absent.includes(code)) throw error;
    throw new Failure("notFound", "No pool runs", {
      cause: error,
      hint: "Start one: pool-manager start",
    });
  } finally {
    client.close();
  }
}

export async function poolStatus(socket: string): Promise<PoolStatus> {
  return v.parse(poolStatusSchema, await askPool(socket, { op: "status" }));
}

function message(body: Body): Request {
  return { version: protocolVersion, ...body } as Request;
}
