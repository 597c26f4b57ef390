// Copies with cp, which knows of sparse files, hard links and attributes.

import { existsSync, readFileSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { Failure, messageOf } from "../../std/errors.ts";
import { binarySize } from "../../std/units.ts";
import { type Progress, run } from "./run.ts";
import { scanTree } from "./tree.ts";

/** Less than that is what a full file system has left. */
const nothingBytes = 64 * 1024;

const progressMs = 250;

/**
 * Makes `to` what `from` is, attributes included; what was in `to` goes. Throws a
 * `resources` Failure where the file system of `to` is full.
 */
export async function copyTree(
  { from, to }: { from: string; to: string },
  progress: Progress,
): Promise<void> {
  // A copy that was broken off; it may be where a volume is mounted.
  if (existsSync(to)) await emptyDirectory(to);
  progress(0, 0, (await scanTree(from)).length);
  let pid = 0;
  let files = 0;
  let printedBytes = 0;
  const told = { files: 0, bytes: 0 };
  const tell = () => {
    const bytes = Math.max(writtenBy(pid) - printedBytes, told.bytes);
    progress(files - told.files, bytes - told.bytes);
    Object.assign(told, { files, bytes });
  };
  const timer = setInterval(tell, progressMs);
  const options = ["--archive", "--verbose", "--no-target-directory"];
  try {
    await run("cp", [...options, from, to], {
      started: (started) => pid = started,
      // A line for each entry: cp escapes line breaks in names.
      output: (chunk) => {
        printedBytes += chunk.length;
        for (const byte of chunk) if (byte === 10) files++;
      },
    });
    tell();
    await run("sync", ["--file-system", to]);
  } catch (error) {
    refuseFullDisk(existsSync(to) ? to : dirname(to), error);
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/** Removes what is in a directory; it stays. */
export async function emptyDirectory(path: string): Promise<void> {
  await run("find", [path, "-mindepth", "1", "-delete"]);
}

/** What a process has written so far, proc_pid_io(5); 0 when it has ended. */
function writtenBy(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/io`, "utf8");
    return Number(/^wchar: (\d+)$/m.exec(text)?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function refuseFullDisk(path: string, cause: unknown): void {
  const { bavail, bsize, ffree, files: inodes } = statfsSync(path);
  const freeBytes = bavail * bsize;
  if (freeBytes >= nothingBytes && (inodes === 0 || ffree > 0)) return;
  throw new Failure("resources", `The disk is full: ${messageOf(cause)}`, {
    hint: `${binarySize(freeBytes)} are left. Make room, then run it again.`,
  });
}
