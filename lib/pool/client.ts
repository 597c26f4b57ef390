// Client of the pool manager's socket. Does not load the Docker API: loading it would
// take longer than a claim.

import { renameSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import { chosenImage } from "../image/recipes.ts";
import {
  connectMs,
  keepsOwners,
  openSocket,
  type Reach,
} from "../instance/parent-socket.ts";
import type { HomePaths } from "../instance/paths.ts";
import type { Settings } from "../instance/settings.ts";
import { relayUseOf } from "../relay/names.ts";
import type { SpawnRequest } from "../worker/request.ts";
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

/** Error codes of a socket that nobody listens on. */
const notListening = ["ENOENT", "ECONNREFUSED", "EACCES", "ECONNRESET"];

/** Time for the parent to restart a manager that was killed during a claim. */
const restartTimeoutMs = 3000;

/**
 * Only the manager decides when a claim has failed, since it holds the worker and the
 * name. So a client waits as long as the manager is alive: after each `idleTimeoutMs` without
 * an answer it sends a ping, which must be answered within `pingMs`.
 */
const defaultTimeouts = { idleTimeoutMs: 3000, pingMs: 2000 };

/** Longest wait for an answer, long enough for a slow engine. */
const answerTimeoutMs = 60_000;

/** A request without the protocol version. */
export type PoolRequest = Request extends infer R
  ? R extends Request ? Omit<R, "version"> : never
  : never;

/**
 * Claims a warm worker; returns the reason if there is none. Retries if the manager dies
 * before it answers, with the same id, so that it still counts as one claim.
 */
export async function claim(
  reach: Reach,
  request: Omit<ClaimRequest, "op" | "id">,
  timeouts = defaultTimeouts,
): Promise<ClaimReply> {
  const id = crypto.randomUUID();
  const deadline = Date.now() + restartTimeoutMs;
  const { home } = reach;
  while (true) {
    const client = clientOf(reach);
    try {
      const reply = v.parse(
        claimReplySchema,
        await askWhileAlive(
          client,
          reach,
          { op: "claim", id, ...request },
          { timeoutMs: answerTimeoutMs, ...timeouts },
        ),
      );
      if (reply.start === "warm" && !confirmClaim(home, reply.worker.id)) {
        return { start: "cold", reason: "the claim expired" };
      }
      return reply;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // A Failure from the manager, or an answer that does not match the protocol.
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
  return { start: "cold", reason: "the pool is not running" };
}

/**
 * Confirms a claim by renaming its file. The manager takes an unconfirmed claim back by
 * removing that file: only one of the two succeeds, even if a process is killed. Returns
 * false if the manager was first.
 */
function confirmClaim(home: HomePaths, container: string): boolean {
  try {
    renameSync(home.loan(container), home.claim(container));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/**
 * Claims a warm worker if one can fulfil the request, else returns the reason. Pass
 * `coldReason` if the caller already has a reason not to claim.
 */
export async function claimFor(
  { settings, env, ...reach }: Reach & {
    settings: Settings;
    env: NodeJS.ProcessEnv;
  },
  request: SpawnRequest,
  coldReason?: string,
): Promise<ClaimReply> {
  const reason = coldReason ?? unsuitableReason(request, env) ??
    (keepsOwners(reach) === false
      ? "the engine's machine does not keep owners"
      : undefined);
  if (reason === undefined) {
    return await claim(reach, claimRequest(settings, request));
  }
  await reportCold(reach, reason);
  return { start: "cold", reason };
}

/** Why a warm worker cannot fulfil the request; undefined if it can. */
function unsuitableReason(
  request: SpawnRequest,
  env: NodeJS.ProcessEnv,
): string | undefined {
  const reasons: [boolean | undefined, string][] = [
    [request.standalone, "a network of its own"],
    [request.limited === false, "no limits"],
    [request.keep, "the container is kept after its exit"],
    [(request.mounts ?? []).length > 0, "further mounts"],
    [request.sshAgent !== undefined, "an ssh-agent"],
    [(request.env ?? []).length > 0, "variables"],
    [request.command !== undefined, "a command of its own"],
    // The parent cannot resolve it: it does not have the host's working directory.
    [
      env["HAL9000_ROLE"] === "parent" && !isAbsolute(request.directory),
      "a relative path",
    ],
  ];
  return reasons.find(([applies]) => applies)?.[1];
}

/** The claim that corresponds to a spawn request. */
export function claimRequest(
  settings: Settings,
  request: SpawnRequest,
): Omit<ClaimRequest, "op" | "id"> {
  const image = request.image ?? chosenImage(settings);
  return {
    instance: settings.HAL9000_PREFIX,
    directory: resolve(request.cwd, request.directory),
    ...(request.copyOf === undefined ? {} : { copyOf: request.copyOf }),
    ...(request.name === undefined ? {} : { name: request.name }),
    ...(request.session === undefined ? {} : { session: request.session }),
    ...(request.once ? { once: true } : {}),
    ...(image === undefined ? {} : { image }),
    ...(request.imageId === undefined ? {} : { imageId: request.imageId }),
    allowAnyPath: request.allowAnyPath ?? false,
    ...(settings.UNGUARDED ? { unguarded: true } : {}),
    limits: {
      memoryBytes: settings.WORKER_MEMORY,
      cpus: settings.WORKER_CPUS,
      pids: settings.WORKER_PIDS_LIMIT,
    },
    network: settings.WORKER_NETWORK,
    relay: relayUseOf(settings.HAL9000_RELAY, request),
    ...(settings.WORKER_CACHES.length > 0
      ? { caches: [...settings.WORKER_CACHES] }
      : {}),
    ...(settings.REQUIRE_LIMITS ? { requireLimits: true } : {}),
  };
}

function reasonOf(error: unknown): string {
  if (error instanceof Failure && !isOtherVersion(error)) return error.message;
  return "the pool has another version";
}

/** Whether client and manager are of different versions, from an answer or a refusal. */
function isOtherVersion(error: unknown): boolean {
  return error instanceof v.ValiError ||
    (error instanceof Failure && error.kind === "usage" &&
      error.message.startsWith("The pool was sent:"));
}

/** Sends a request and waits for the answer as long as the manager responds to pings. */
async function askWhileAlive(
  client: Client,
  reach: Reach,
  body: PoolRequest,
  { timeoutMs, idleTimeoutMs, pingMs }: typeof defaultTimeouts & {
    timeoutMs: number;
  },
): Promise<unknown> {
  const answer = client.ask(withVersion(body), timeoutMs);
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
    if (await poolAnswers(reach, pingMs)) continue;
    throw Object.assign(new Error("the pool does not answer"), {
      code: "ETIMEDOUT",
    });
  }
}

/** Whether the manager responds to a ping. */
export async function poolAnswers(
  reach: Reach,
  pingMs = defaultTimeouts.pingMs,
): Promise<boolean> {
  const client = clientOf(reach);
  try {
    const timeoutMs = pingMs + connectMs(reach);
    await client.ask(withVersion({ op: "ping" }), timeoutMs);
    return true;
  } catch (error) {
    // A refusal by a manager of another version is also a response.
    return error instanceof Failure;
  } finally {
    client.close();
  }
}

/** Reports a cold spawn for the pool's metrics; errors are ignored. */
async function reportCold(reach: Reach, reason: string): Promise<void> {
  const timeoutMs = 500 + connectMs(reach);
  await askPool(reach, { op: "cold", reason }, timeoutMs).catch(() => {});
}

/**
 * Sends a request and returns the answer. Throws a `notFound` Failure if the pool is not
 * running, a `failed` one if its manager hangs or has another version.
 */
export async function askPool(
  reach: Reach,
  body: PoolRequest,
  timeoutMs = answerTimeoutMs,
  timeouts = defaultTimeouts,
): Promise<unknown> {
  const client = clientOf(reach);
  try {
    const limits = { timeoutMs, ...timeouts };
    return await askWhileAlive(client, reach, body, limits);
  } catch (error) {
    if (isOtherVersion(error)) throw otherVersion(error);
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ETIMEDOUT") {
      throw new Failure("failed", "The pool manager does not answer", {
        cause: error,
        hint:
          "The parent restarts a hanging manager within a minute. If it does not: " +
          "claudy daemon restart",
      });
    }
    if (code === undefined || !notListening.includes(code)) throw error;
    throw new Failure("notFound", "The pool is not running", {
      cause: error,
      hint: "Start it: claudy pool start",
    });
  } finally {
    client.close();
  }
}

export async function poolStatus(reach: Reach): Promise<PoolStatus> {
  const answer = await askPool(reach, { op: "status" }, statusTimeoutMs);
  return checkAnswer(poolStatusSchema, answer);
}

/** Validates an answer; throws a `failed` Failure if the pool has another version. */
export function checkAnswer<T>(
  schema: v.GenericSchema<unknown, T>,
  answer: unknown,
): T {
  const checked = v.safeParse(schema, answer);
  if (checked.success) return checked.output;
  throw otherVersion(new v.ValiError(checked.issues));
}

/** Shorter: the status must not wait for a hanging engine. */
const statusTimeoutMs = 10_000;

function otherVersion(cause: unknown): Failure {
  return new Failure(
    "failed",
    "Cannot talk to the pool: the daemon has another version",
    { cause, hint: "Restart the daemon: claudy daemon restart" },
  );
}

function clientOf(reach: Reach): Client {
  return new Client(openSocket(reach, reach.home.poolSocket));
}

function withVersion(body: PoolRequest): Request {
  return { version: protocolVersion, ...body } as Request;
}
