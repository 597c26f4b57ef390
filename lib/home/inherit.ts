// Copies the host's Claude configuration into a session's Claude home: when the session
// is created, and on demand. The host's files are only read.

import { createHash } from "node:crypto";
import { chownSync, existsSync, lstatSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import process from "node:process";
import * as v from "valibot";
import {
  type HostConfig,
  type InheritRequest,
  maxBytes,
  maxJsonBytes,
  readHostConfig,
} from "./host-config.ts";
import type { Instance } from "../instance/instance.ts";
import { Directory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import { readJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import {
  ensureDirectory,
  type Owner,
  replaceFile,
  writeAtomic,
} from "../std/owned.ts";
import { NotPlain, readPlainFile } from "../std/plain-file.ts";
import type { Project } from "../project/project.ts";
import { sessionHome } from "./worker-home.ts";

/** Inherits for a new session: does nothing if the session has a Claude home. */
export function inheritOnce(
  instance: Home,
  { session, project, request }: {
    session: string;
    project: Project;
    request: InheritRequest | undefined;
  },
  log: Log,
): void {
  const { home } = instance;
  const isNew = !existsSync(join(home.home, sessionHome(session)));
  if (!request || !isNew) return;
  const config = readHostConfig(request, project.path, log);
  inherit(instance, session, project, config);
  if (config.left.length > 0) {
    log(`Not inherited from ${request.claudeHome}: ${config.left.join("; ")}`);
  }
}

/** Inherits for the worker of `claudy run`, before Claude is started in it. */
export function inheritForRun(
  claudeHome: string,
  project: Project,
  request: InheritRequest | undefined,
  log: Log,
): void {
  if (!request) return;
  const { files } = readHostConfig(request, project.path, log);
  for (const [name, bytes] of files) {
    writeFileIn(claudeHome, name, bytes, project);
  }
}

const recordSchema = v.object({
  version: v.literal(1),
  /** SHA-256 of each file as it was copied into the session. */
  files: v.record(v.string(), v.string()),
});

type Home = Pick<Instance, "home" | "owner">;

export interface Inherited {
  written: string[];
  removed: string[];
  /** Not overwritten, because the session has changed them. */
  kept: string[];
}

/**
 * Updates a Claude home to the host's current configuration. Keeps the changes and
 * removals that the session has made. No worker may use the home meanwhile: a link
 * created at the right moment would be followed.
 */
export function inherit(
  { home, owner }: Home,
  session: string,
  project: Owner,
  config: HostConfig,
): Inherited {
  const claudeHome = join(home.home, sessionHome(session));
  const copied = readCopied(home.inherited(session));
  const result: Inherited = { written: [], removed: [], kept: [] };
  // For the copied files, and for the session's own versions of them.
  const budget = { bytes: 2 * maxBytes };
  const next: Record<string, string> = {};
  ensureDirectory(claudeHome, 0o700, project);
  for (const [name, bytes] of config.files) {
    const digest = digestOf(bytes);
    const present = digestAt(claudeHome, name, budget);
    const before = copied[name];
    // Changed or removed by the session, or created by it: keep.
    if (present !== undefined ? present !== before : before !== undefined) {
      if (present !== digest) result.kept.push(name);
      if (before !== undefined) next[name] = before;
      continue;
    }
    next[name] = digest;
    if (present === digest) continue;
    writeFileIn(claudeHome, name, bytes, project);
    result.written.push(name);
  }
  for (const [name, before] of Object.entries(copied)) {
    if (
      config.files.has(name) || digestAt(claudeHome, name, budget) !== before
    ) {
      continue;
    }
    rmSync(join(claudeHome, name), { force: true });
    result.removed.push(name);
  }
  const record = { version: 1, files: next };
  writeAtomic(home.inherited(session), JSON.stringify(record), owner);
  return result;
}

function readCopied(path: string): Record<string, string> {
  // Empty if nothing was inherited yet, or the record is not readable.
  return readJson(path, recordSchema, maxJsonBytes)?.files ?? {};
}

function digestOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Digest of a regular file, undefined if it does not exist. For a link, another kind of
 * file, or a file above the budget it returns a text that equals no digest, so that the
 * file counts as changed by the session.
 */
function digestAt(
  claudeHome: string,
  name: string,
  budget: { bytes: number },
): string | undefined {
  let path = claudeHome;
  for (const part of name.split("/")) {
    path = join(path, part);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat) return undefined;
    if (stat.isSymbolicLink()) return "a link";
  }
  try {
    const bytes = readPlainFile(path, { maxBytes: budget.bytes });
    budget.bytes -= bytes.length;
    return digestOf(bytes);
  } catch (error) {
    if (error instanceof NotPlain) return error.message;
    throw error;
  }
}

/** Follows no link: a program of the worker's image may already run beside this. */
function writeFileIn(
  claudeHome: string,
  name: string,
  bytes: Buffer,
  owner: Owner,
): void {
  const parts = name.split("/");
  const file = parts.pop() ?? "";
  let directory = Directory.open(claudeHome);
  try {
    for (const part of parts) {
      const next = directory && madeIn(directory, part, owner);
      directory?.close();
      directory = next;
    }
    if (!directory) {
      throw new Failure(
        "failed",
        `Cannot write ${join(claudeHome, name)}: ` +
          "there is a link or a file in place of a directory",
        { hint: "Remove it; it was created by a worker." },
      );
    }
    replaceFile(directory.at(file), bytes, owner, { sync: false });
  } finally {
    directory?.close();
  }
}

/** Opens a subdirectory, and creates it if it is missing. Undefined if it is a link. */
function madeIn(
  directory: Directory,
  name: string,
  { uid, gid }: Owner,
): Directory | undefined {
  try {
    mkdirSync(directory.at(name), { mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return directory.enter(name);
  }
  const made = directory.enter(name);
  if (made && process.getuid?.() === 0) chownSync(made.at("."), uid, gid);
  return made;
}
