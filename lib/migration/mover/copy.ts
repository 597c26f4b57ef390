// Copies with cp, which handles sparse files, hard links and attributes.

import { existsSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { Failure, messageOf } from "../../std/errors.ts";
import { writtenBy } from "../../std/proc.ts";
import { binarySize } from "../../std/units.ts";
import { type Progress, run } from "./run.ts";
import { scanTree } from "./tree.ts";

/** A file system with less free space than this counts as full. */
const fullDiskBytes = 64 * 1024;

const progressMs = 250;

/**
 * Copies `from` to `to`, including attributes; deletes what was in `to`. Throws a
 * `resources` Failure if the target's file system is full.
 */
export async function copyTree(
  { from, to }: { from: string; to: string },
  progress: Progress,
): Promise<void> {
  // Left by an interrupted copy. Keep the directory, as a volume may be mounted
  // there.
  if (existsSync(to)) await emptyDirectory(to);
  progress(0, 0, (await scanTree(from)).length);
  let pid = 0;
  let files = 0;
  let printedBytes = 0;
  const reported = { files: 0, bytes: 0 };
  const report = () => {
    const bytes = Math.max(writtenBy(pid) - printedBytes, reported.bytes);
    progress(files - reported.files, bytes - reported.bytes);
    Object.assign(reported, { files, bytes });
  };
  const timer = setInterval(report, progressMs);
  const options = ["--archive", "--verbose", "--no-target-directory"];
  try {
    await run("cp", [...options, from, to], {
      started: (started) => pid = started,
      // One line per entry: cp escapes line breaks in names.
      output: (chunk) => {
        printedBytes += chunk.length;
        for (const byte of chunk) if (byte === 10) files++;
      },
    });
    report();
    await run("sync", ["--file-system", to]);
  } catch (error) {
    refuseFullDisk(existsSync(to) ? to : dirname(to), error);
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/** Empties a directory. */
export async function emptyDirectory(path: string): Promise<void> {
  await run("find", [path, "-mindepth", "1", "-delete"]);
}

function refuseFullDisk(path: string, cause: unknown): void {
  const { bavail, bsize, ffree, files: inodes } = statfsSync(path);
  const freeBytes = bavail * bsize;
  if (freeBytes >= fullDiskBytes && (inodes === 0 || ffree > 0)) return;
  throw new Failure("resources", `The disk is full: ${messageOf(cause)}`, {
    hint: `${
      binarySize(freeBytes)
    } are left. Free some space, then run it again.`,
  });
}
