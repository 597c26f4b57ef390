// Copies a tree with cp, which knows of sparse files, hard links and attributes.
// Runs in the mover.

import { existsSync, readFileSync, statfsSync } from "node:fs";
import { dirname } from "node:path";
import { Failure, messageOf } from "../../std/errors.ts";
import { binarySize } from "../../std/units.ts";
import { run } from "./tree.ts";

/** Less than that is what a full file system has left. */
const nothingBytes = 64 * 1024;

const tellMs = 250;

/**
 * Copies `from` to `to`, itself included. Throws a `resources` Failure where the
 * file system of `to` is full.
 */
export async function copyTree(
  from: string,
  to: string,
  progress: (files: number, bytes: number) => void,
): Promise<void> {
  let files = 0;
  let printed = 0;
  let told = { files: 0, bytes: 0 };
  let pid = 0;
  const tell = () => {
    const bytes = Math.max(writtenBy(pid) - printed, told.bytes);
    progress(files - told.files, bytes - told.bytes);
    told = { files, bytes };
  };
  const timer = setInterval(tell, tellMs);
  try {
    await run("cp", [
      "--archive",
      "--verbose",
      "--no-target-directory",
      from,
      to,
    ], {
      started: (started) => pid = started,
      // A line an entry: cp escapes what names have of line breaks.
      output: (chunk) => {
        printed += chunk.length;
        for (const byte of chunk) if (byte === 10) files++;
      },
    });
    tell();
    await run("sync", ["--file-system", to]);
  } catch (error) {
    const { bavail, bsize, ffree, files: inodes } = statfsSync(
      existsSync(to) ? to : dirname(to),
    );
    const full = bavail * bsize < nothingBytes || (inodes > 0 && ffree === 0);
    if (!full) throw error;
    throw new Failure("resources", `The disk is full: ${messageOf(error)}`, {
      hint: `${
        binarySize(bavail * bsize)
      } are left. Make room, then run it again.`,
    });
  } finally {
    clearInterval(timer);
  }
}

/** What a process has written so far, proc_pid_io(5); 0 when it is gone. */
function writtenBy(pid: number): number {
  try {
    const text = readFileSync(`/proc/${pid}/io`, "utf8");
    return Number(/^wchar: (\d+)$/m.exec(text)?.[1] ?? 0);
  } catch {
    return 0;
  }
}
