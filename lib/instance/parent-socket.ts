// The sockets in HAL9000_HOME/run that the parent and nsenter serve. Unix sockets do
// not cross to an engine that runs in another machine, although their files are shared:
// then the host connects by a program in the parent.

import { createConnection } from "node:net";
import { relative } from "node:path";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import type { Docker } from "../docker/docker.ts";
import { userInContainers } from "../docker/engine-info.ts";
import { execStream } from "../docker/exec.ts";
import { readJson } from "../std/json.ts";
import { writeAtomic } from "../std/owned.ts";
import { Client, listen } from "../std/socket-lines.ts";
import type { Instance } from "./instance.ts";
import type { HomePaths } from "./paths.ts";

/** What is needed to connect to the sockets. */
export interface Reach {
  home: HomePaths;
  /** A function loads the API only if it is needed. Without, sockets have to cross. */
  docker?: Docker | (() => Promise<Docker>);
  /** Set in the parent, where the sockets are. */
  self?: unknown;
}

/** For commands that run often, and start faster without the engine's API. */
export function reachOf(env: NodeJS.ProcessEnv, home: HomePaths): Reach {
  const docker = async () => {
    const { connect } = await import("../docker/connection.ts");
    return await connect(env);
  };
  return { home, docker, self: env["HAL9000_ROLE"] === "parent" };
}

const ownerSchema = v.object({ uid: v.number(), gid: v.number() });

const crossingSchema = v.object({
  version: v.literal(1),
  /** Id of the parent's container. */
  container: v.string(),
  cross: v.boolean(),
  /** Who the owner of HAL9000_HOME is in the parent. */
  owner: v.optional(ownerSchema),
  /** Whether that is who it has to be; undefined if it is not known. */
  keepsOwners: v.optional(v.boolean()),
});

const answerSchema = v.object({ owner: v.optional(ownerSchema) });

/** How long a live parent may take to answer on a busy machine. */
const answerMs = 10_000;

/** A parent that does not hang mostly answers sooner. */
const soonMs = 1000;

/** In the parent: answers at run/parent.sock until `stop` is aborted. */
export async function serveParent(
  { home, owner }: Pick<Instance, "home" | "owner">,
  stop: AbortSignal,
): Promise<void> {
  const answer = () => Promise.resolve({ owner });
  const listener = await listen(home.parentSocket, answer, { owner });
  if (stop.aborted) await listener.close();
  else stop.addEventListener("abort", () => void listener.close());
}

/** Whether the parent answers on its socket. */
export async function parentAnswers(reach: Reach): Promise<boolean> {
  return Boolean(await ask(openSocket(reach, reach.home.parentSocket)));
}

async function ask(
  socket: Duplex,
): Promise<v.InferOutput<typeof answerSchema> | undefined> {
  const client = new Client(socket);
  try {
    return v.parse(answerSchema, await client.ask({}, answerMs));
  } catch {
    return undefined;
  } finally {
    client.close();
  }
}

/**
 * Finds out whether unix sockets cross between this machine and the engine's, by
 * connecting to a parent that is ready, and stores the answer. Returns whether the parent
 * answers at all.
 */
export async function findCrossing(
  instance: Pick<Instance, "docker" | "home" | "owner">,
  container: string,
): Promise<boolean> {
  const { docker, home, owner } = instance;
  const here = () => ask(createConnection(home.parentSocket));
  const there = () =>
    ask(connectInParent(docker, container, home, home.parentSocket));
  const asked = here();
  let crossed = await Promise.race([
    asked,
    sleep(soonMs, undefined, { ref: false }),
  ]);
  let answer = crossed;
  // Both ways at once: a hanging parent accepts connections, and answers none.
  if (!crossed) [crossed, answer] = await Promise.all([asked, there()]);
  answer ??= crossed;
  if (!answer) return false;
  // It may have begun to listen in the meantime.
  crossed ??= await here();
  const wanted = await userInContainers(docker, owner, home.home)
    .catch(() => undefined); // a start reports it
  const found = {
    version: 1,
    container,
    cross: Boolean(crossed),
    ...answer,
    ...(answer.owner && wanted
      ? { keepsOwners: answer.owner.uid === wanted.uid }
      : {}),
  };
  writeAtomic(home.crossing, JSON.stringify(found) + "\n", owner);
  return true;
}

/**
 * A sentence if the engine's machine shows the files of HAL9000_HOME as those of another user.
 * Some show each user's own.
 */
export async function foreignOwner(
  { docker, home, owner, self }: Pick<
    Instance,
    "docker" | "home" | "owner" | "self"
  >,
): Promise<string | undefined> {
  const seen = self ? undefined : readJson(home.crossing, crossingSchema)
    ?.owner;
  if (!seen) return undefined;
  const { uid } = await userInContainers(docker, owner, home.home);
  if (seen.uid === uid) return undefined;
  return `files of uid ${uid} belong to uid ${seen.uid} in containers: the ` +
    "engine's machine does not keep owners";
}

/**
 * False if the parent takes another user for the owner, because the engine's machine does
 * not keep owners: warm workers would run as that user.
 */
export function keepsOwners(
  { home }: Pick<Reach, "home">,
): boolean | undefined {
  return readJson(home.crossing, crossingSchema)?.keepsOwners;
}

/** What to do about it. */
export const ownerHint =
  "Share your files with the engine's machine in a way that keeps owners, such as virtiofs.";

/** Whether unix sockets cross to the engine's machine; undefined if it is not known. */
export function socketsCross(
  { home }: Pick<Reach, "home">,
): boolean | undefined {
  return readJson(home.crossing, crossingSchema)?.cross;
}

/** The time to connect if the engine starts a program for it; 0 if sockets cross. */
export function connectMs({ home, self }: Reach): number {
  return !self && socketsCross({ home }) === false ? 10_000 : 0;
}

export const noCrossing =
  "unix sockets do not cross between this machine and the engine's";

/** Connects to one of the sockets. Errors are those of a connection, with a `code`. */
export function openSocket(
  { home, docker, self }: Reach,
  path: string,
): Duplex {
  const found = self ? undefined : readJson(home.crossing, crossingSchema);
  return docker && found?.cross === false
    ? connectInParent(docker, found.container, home, path)
    : createConnection({ path, allowHalfOpen: true });
}

function connectInParent(
  docker: NonNullable<Reach["docker"]>,
  container: string,
  { home }: HomePaths,
  path: string,
): Duplex {
  const command = ["/scripts/connect-socket", relative(home, path)];
  const connect = typeof docker === "function" ? docker : () => docker;
  return execStream(connect, container, command);
}
