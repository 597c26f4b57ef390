// What an instance leaves behind over time: found first, shown, then removed.

import { existsSync, lstatSync, readdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import type { Instance } from "./instance.ts";
import { label } from "./labels.ts";
import { messageOf } from "./errors.ts";
import type { Log } from "./log.ts";
import { readRecords } from "./record.ts";
import { removeSession } from "./session.ts";
import { readSessions } from "./session-record.ts";
import { measureTree } from "./storage.ts";
import { listWorkers } from "./workers.ts";

export interface Leftover {
  kind: "log" | "record" | "home" | "backup" | "image" | "session";
  /** A path, an image's id, or a session's name. */
  name: string;
  sizeBytes: number;
}

export interface PruneOptions {
  olderThanMs: number;
  /** Conversations too, of sessions that nobody has opened for so long. */
  sessions: boolean;
}

/** What can go; nothing is removed yet. */
export async function findLeftovers(
  instance: Instance,
  { olderThanMs, sessions }: PruneOptions,
): Promise<Leftover[]> {
  const { home } = instance;
  const before = Date.now() - olderThanMs;
  const files = (kind: Leftover["kind"], directory: string) =>
    entriesOf(directory).filter(({ mtimeMs, isFile }) =>
      isFile && mtimeMs < before
    ).map(({ path, sizeBytes }) => ({ kind, name: path, sizeBytes }));
  return [
    ...files("log", home.logs),
    ...files("record", home.ended),
    ...files("record", join(home.sessions, "damaged")),
    ...workerHomes(instance, before),
    ...backups(home.backups, before),
    ...await images(instance, before),
    ...(sessions ? await oldSessions(instance, before) : []),
  ];
}

interface Entry {
  path: string;
  mtimeMs: number;
  sizeBytes: number;
  isFile: boolean;
}

function entriesOf(directory: string): Entry[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory).map((name) => {
    const path = join(directory, name);
    const stat = lstatSync(path);
    const isFile = stat.isFile();
    return { path, mtimeMs: stat.mtimeMs, sizeBytes: stat.size, isFile };
  });
}

/** Claude homes of workers without a session, that have ended. */
function workerHomes(instance: Instance, before: number): Leftover[] {
  const records = readRecords(instance, () => {});
  const used = new Set(records.map(({ home }) => basename(home)));
  return entriesOf(instance.home.workers)
    .filter(({ path, mtimeMs }) =>
      !used.has(basename(path)) && mtimeMs < before
    )
    .map(({ path }) => ({ kind: "home", name: path, sizeBytes: sizeOf(path) }));
}

/** The newest one always stays. */
function backups(directory: string, before: number): Leftover[] {
  return entriesOf(directory)
    .sort((a, b) => b.mtimeMs - a.mtimeMs).slice(1)
    .filter(({ mtimeMs }) => mtimeMs < before)
    .map(({ path }) => ({
      kind: "backup",
      name: path,
      sizeBytes: sizeOf(path),
    }));
}

/**
 * Images of ours that a later build has taken the name from, and profiles that are
 * this instance's own: they are built again when they are asked for.
 */
async function images(
  { docker, prefix }: Instance,
  before: number,
): Promise<Leftover[]> {
  const found = (await Promise.all([
    { dangling: ["true"], label: [label.inputs] },
    {
      reference: ["profile", "apt", "worker"].map((kind) =>
        `${prefix}-${kind}`
      ),
    },
  ].map((filters) => docker.listImages({ filters })))).flat();
  const unused = new Map(found.map((image) => [image.Id, image]));
  for (const { ImageID } of await docker.listContainers({ all: true })) {
    unused.delete(ImageID);
  }
  return [...unused.values()].filter(({ Created }) => Created * 1000 < before)
    .map(({ Id, Size }) => ({ kind: "image", name: Id, sizeBytes: Size }));
}

async function oldSessions(
  instance: Instance,
  before: number,
): Promise<Leftover[]> {
  const live = new Set(
    (await listWorkers(instance)).map(({ session }) => session),
  );
  return readSessions(instance, () => {})
    .filter(({ name, usedAt }) =>
      !live.has(name) && Date.parse(usedAt) < before
    )
    .map(({ name }) => ({
      kind: "session",
      name,
      sizeBytes: sizeOf(join(instance.home.claude, name)),
    }));
}

function sizeOf(path: string): number {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat ? measureTree(path, stat.dev).sizeBytes : 0;
}

/**
 * Removes them; gives those that went. What cannot be removed is told to `log`, and
 * what somebody has come to use since it was found stays.
 */
export async function removeLeftovers(
  instance: Instance,
  leftovers: Leftover[],
  options: PruneOptions,
  log: Log,
): Promise<Leftover[]> {
  const removed: Leftover[] = [];
  for (const leftover of leftovers) {
    const { kind, name } = leftover;
    try {
      if (kind === "session" || kind === "home") {
        const now = await findLeftovers(instance, options);
        if (!now.some((other) => other.kind === kind && other.name === name)) {
          log(`In use again: ${kind} ${name}`);
          continue;
        }
      }
      if (kind === "image") await instance.docker.getImage(name).remove();
      else if (kind === "session") await removeSession(instance, name, log);
      else rmSync(name, { recursive: true, force: true });
      removed.push(leftover);
    } catch (error) {
      log(`Cannot remove ${kind} ${name}: ${messageOf(error)}`);
    }
  }
  return removed;
}
