// Parses and checks the mounts of --mount, SRC:DST[:ro].

import { posix } from "node:path";
import { Failure } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { resolveGiven } from "./project.ts";
import { insideWorker } from "../instance/paths.ts";

/** A requested mount, besides the mounts of every worker. */
export interface WorkerMount {
  source: string;
  target: string;
  readOnly: boolean;
  /** The inode of the checked source, as stat's %d:%i; undefined in HAL9000_HOME. */
  inode?: string | undefined;
  /**
   * For a part of another mount: that mount's target, and the path in it, unless another
   * file is mounted there.
   */
  within?: { target: string; path: string | undefined } | undefined;
  /** A group of the engine's machine that the worker needs to use it. */
  group?: number;
}

/**
 * A target can be none of these, nor contain or be inside one of them. Exception: a
 * target may be inside the workspace and cover a directory of the project.
 */
const ownTargets = [
  insideWorker.workspace,
  insideWorker.claudeHome,
  insideWorker.claudeConfig,
  insideWorker.credentials,
  insideWorker.plugins,
  insideWorker.secrets,
];

/** A target can be none of these, nor inside one. */
const systemTargets = [
  "/bin",
  "/dev",
  "/etc",
  "/lib",
  "/lib64",
  "/proc",
  "/sbin",
  "/sys",
  "/usr",
];

/** Splits SRC:DST[:ro|:rw]; throws a `usage` Failure for anything else. */
export function parseMount(text: string): WorkerMount {
  const match = /^(.+?):(\/[^:]*)(?::(ro|rw))?$/s.exec(text);
  const [, source, target, mode] = match ?? [];
  if (source === undefined || target === undefined) {
    throw new Failure("usage", `--mount must be SRC:DST[:ro], got "${text}"`, {
      hint: "DST is an absolute path in the worker.",
    });
  }
  return { source, target, readOnly: mode === "ro" };
}

/** Refuses duplicate targets with a clearer message than the engine's. */
export function refuseSameTargets(mounts: WorkerMount[]): void {
  const targets = mounts.map(({ target }) => target);
  const twice = targets.find((target, index) =>
    targets.indexOf(target) !== index
  );
  if (twice === undefined) return;
  throw new Failure("usage", `--mount has "${twice}" twice as target`, {
    hint: "Give each mount its own target: --mount SRC:DST",
  });
}

/** Normalizes a target like the engine: without `.`, `//` and the image's links. */
function plainTarget(target: string): string {
  const plain = posix.normalize(target).replace(/^\/+/, "/")
    .replace(/(.)\/+$/, "$1");
  return plain.replace(/^\/var\/run(?=\/|$)/, "/run");
}

/** Whether a path of the worker can be a mount target. */
export function isTarget(target: string): boolean {
  return !target.includes("\n") &&
    !ownTargets.some((path) =>
      isWithin(path, target) ||
      path !== insideWorker.workspace && isWithin(target, path)
    ) && !systemTargets.some((path) => isWithin(target, path));
}

/** Parses a mount and checks its source and target. */
export async function resolveMount(
  instance: Instance,
  text: string,
  cwd: string,
  allowAny: boolean,
): Promise<WorkerMount> {
  const mount = parseMount(text);
  const target = plainTarget(mount.target);
  if (mount.target.split("/").includes("..") || !isTarget(target)) {
    throw new Failure("unsafe", `Cannot mount at "${mount.target}"`, {
      hint: "Choose another target, such as /data: this one is reserved.",
    });
  }
  const { path, inode } = await resolveGiven(instance, {
    path: mount.source,
    cwd,
    as: "mount",
    readOnly: mount.readOnly,
    allowAny,
  });
  return { ...mount, source: path, target, inode };
}
