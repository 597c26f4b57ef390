// The pool, asked from outside of its process. Loads nothing of Docker: a claim
// is over before that would be.

import { existsSync, renameSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import { workerImage } from "../image/recipes.ts";
import type { HomePaths } from "../instance/paths.ts";
import type { Settings } from "../instance/settings.ts";
import type { SpawnRequest } from "../worker/spawn.ts";
import { Client } from "../std/socket-lines.ts";
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

/** A manager that was killed in the middle of a claim is back within that. */
const returnMs = 3000;

/**
 * The manager alone decides when it gives a claim up, for it holds the worker and
 * the name. Whoever asks waits for its answer, as long as it lives: it is asked for
 * a sign of life after each such silence, and has so long to give one.
 */
const defaultTimeouts = { idleTimeoutMs: 3000, pingMs: 2000 };

/** The longest wait for an answer: the engine may be slow. */
const answerMs = 60_000;

/** A request without its version. */
export type PoolRequest = Request extends infer R
  ? R extends Request ? Omit<R, "version"> : never
  : never;

/**
 * A worker of the pool; else why there is none. A claim that the manager has not
 * answered is asked for again, as the same one.
 */
export async function claim(
  home: HomePaths,
  request: Omit<ClaimRequest, "op" | "id">,
  patience = defaultTimeouts,
): Promise<ClaimReply> {
  const id = crypto.randomUUID();
  const deadline = Date.now() + returnMs;
  while (existsSync(home.poolSocket)) {
    const client = new Client(home.poolSocket);
    try {
      const reply = v.parse(
        claimReplySchema,
        await askLiving(
          client,
          home.poolSocket,
          { op: "claim", id, ...request },
          { timeoutMs: answerMs, ...patience },
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
      if (code === "ETIMEDOUT") {
        return { start: "cold", reason: "the pool does not answer" };
      }
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

/**
 * A warm worker where one can be what is asked for, else why not. `unfit` is a reason
 * that the caller knows of.
 */
export async function claimFor(
  { home, settings, env }: {
    home: HomePaths;
    settings: Settings;
    env: NodeJS.ProcessEnv;
  },
  request: SpawnRequest,
  unfit?: string,
): Promise<ClaimReply> {
  const reason = unfit ?? unfitReason(request, env);
  if (reason === undefined) {
    return await claim(home, claimRequest(settings, request));
  }
  await tellCold(home.poolSocket, reason);
  return { start: "cold", reason };
}

function unfitReason(
  request: SpawnRequest,
  env: NodeJS.ProcessEnv,
): string | undefined {
  const reasons: [boolean | undefined, string][] = [
    [request.standalone, "a network of its own"],
    [request.limited === false, "no limits"],
    [request.keep, "it is to stay when it has ended"],
    [(request.mounts ?? []).length > 0, "further mounts"],
    [request.sshAgent !== undefined, "an ssh-agent"],
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
  if (error instanceof Failure && !isMisread(error)) return error.message;
  return "the pool is of another version";
}

/** An answer to a request that the pool of this version would have understood. */
function isMisread(error: unknown): boolean {
  return error instanceof v.ValiError ||
    (error instanceof Failure && error.kind === "usage" &&
      error.message.startsWith("The pool was sent:"));
}

/** Sends a request and waits for its answer while the manager lives. */
async function askLiving(
  client: Client,
  socket: string,
  body: PoolRequest,
  { timeoutMs, idleTimeoutMs, pingMs }: typeof defaultTimeouts & {
    timeoutMs: number;
  },
): Promise<unknown> {
  const answer = client.ask(message(body), timeoutMs);
  answer.catch(() => {}); // thrown below, where it is awaited
  const silent = Symbol();
  while (true) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<typeof silent>((resolve) => {
      timer = setTimeout(() => resolve(silent), idleTimeoutMs);
    });
    try {
      const first = await Promise.race([answer, silence]);
      if (first !== silent) return first;
    } finally {
      clearTimeout(timer);
    }
    if (await poolAnswers(socket, pingMs)) continue;
    throw Object.assign(new Error("the pool does not answer"), {
      code: "ETIMEDOUT",
    });
  }
}

/** Whether the manager lives: one that hangs is silent. */
export async function poolAnswers(
  socket: string,
  pingMs = defaultTimeouts.pingMs,
): Promise<boolean> {
  const client = new Client(socket);
  try {
    await client.ask(message({ op: "ping" }), pingMs);
    return true;
  } catch (error) {
    // What another version says to it is a sign of life, too.
    return error instanceof Failure;
  } finally {
    client.close();
  }
}

/** Tells the pool of a spawn that could not be a claim; it need not hear. */
async function tellCold(socket: string, reason: string): Promise<void> {
  await askPool(socket, { op: "cold", reason }, 500).catch(() => {});
}

/**
 * Throws a `notFound` Failure where no pool runs, a `failed` one where its manager
 * hangs or is of another version.
 */
export async function askPool(
  socket: string,
  body: PoolRequest,
  timeoutMs = answerMs,
  patience = defaultTimeouts,
): Promise<unknown> {
  const client = new Client(socket);
  try {
    const limits = { timeoutMs, ...patience };
    return await askLiving(client, socket, body, limits);
  } catch (error) {
    if (isMisread(error)) throw otherVersion(error);
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ETIMEDOUT") {
      throw new Failure("failed", "The pool manager does not answer", {
        cause: error,
        hint: "The parent replaces one that hangs within a minute; " +
          "else: claudy daemon restart",
      });
    }
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
  const answer = await askPool(socket, { op: "status" }, statusMs);
  return checkAnswer(poolStatusSchema, answer);
}

/** An answer of the pool; throws a `failed` Failure for one of another version. */
export function checkAnswer<T>(
  schema: v.GenericSchema<unknown, T>,
  answer: unknown,
): T {
  const checked = v.safeParse(schema, answer);
  if (checked.success) return checked.output;
  throw otherVersion(new v.ValiError(checked.issues));
}

/** A look at the pool does not wait for an engine that hangs. */
const statusMs = 10_000;

function otherVersion(cause: unknown): Failure {
  return new Failure(
    "failed",
    "Cannot talk to the pool: the daemon is of another version",
    { cause, hint: "Restart the daemon: claudy daemon restart" },
  );
}

function message(body: PoolRequest): Request {
  return { version: protocolVersion, ...body } as Request;
}
