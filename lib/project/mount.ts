// A mount that was asked for: SRC:DST[:ro].

import { posix } from "node:path";
import { Failure } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { resolveGiven } from "./project.ts";
import { insideWorker } from "../instance/paths.ts";

/** A mount that was asked for, besides those that every worker has. */
export interface WorkerMount {
  source: string;
  target: string;
  readOnly: boolean;
  /** Of what was judged, as stat's %d:%i; undefined in HAL9000_HOME. */
  inode?: string | undefined;
}

/**
 * Neither these, nor what contains them, can be a target, nor what lies in them,
 * but for the workspace: a directory of the project may be covered.
 */
const ownTargets = [
  insideWorker.workspace,
  insideWorker.claudeHome,
  insideWorker.claudeConfig,
  insideWorker.credentials,
  insideWorker.plugins,
  insideWorker.secrets,
];

/** Nor these and what lies in them. */
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

/** Refuses two mounts of one target: the engine would, in its own words. */
export function refuseSameTargets(mounts: WorkerMount[]): void {
  const targets = mounts.map(({ target }) => target);
  const twice = targets.find((target, index) =>
    targets.indexOf(target) !== index
  );
  if (twice === undefined) return;
  throw new Failure("usage", `--mount has "${twice}" twice as its target`);
}

/** As the engine will take it: no `.`, no `//`, none of the image's links. */
function plainTarget(target: string): string {
  const plain = posix.normalize(target).replace(/^\/+/, "/")
    .replace(/(.)\/+$/, "$1");
  return plain.replace(/^\/var\/run(?=\/|$)/, "/run");
}

/** Whether something can be mounted at a path of the worker. */
export function isTarget(target: string): boolean {
  return !target.includes("\n") &&
    !ownTargets.some((path) =>
      isWithin(path, target) ||
      path !== insideWorker.workspace && isWithin(target, path)
    ) && !systemTargets.some((path) => isWithin(target, path));
}

/** The mount with its source judged, as the engine is to be asked for it. */
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
      hint: "Choose a target such as /data: this one is the worker's own.",
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
