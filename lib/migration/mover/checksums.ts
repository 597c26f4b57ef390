// Computes checksums of a tree's files, on all cores.

import { Buffer } from "node:buffer";
import { availableParallelism } from "node:os";
import { Failure } from "../../std/errors.ts";
import { type Progress, run } from "./run.ts";
import { type Entry, shown } from "./tree.ts";

/** Cost of opening a file, expressed in bytes that could be read meanwhile. */
const fileCostBytes = 10_000;

/** Sets the checksum of each file. */
export async function addChecksums(
  root: string,
  entries: Entry[],
  progress: Progress,
): Promise<void> {
  const shards = Array.from(
    { length: availableParallelism() },
    () => ({ bytes: 0, files: [] as Entry[] }),
  );
  // For hard links, read only the first name.
  const files = entries.filter(({ type, sameAs }) =>
    type === "file" && sameAs === undefined
  );
  progress(0, 0, files.length);
  for (const entry of files) {
    const least = shards.reduce((a, b) => b.bytes < a.bytes ? b : a);
    least.files.push(entry);
    least.bytes += entry.size + fileCostBytes;
  }
  await Promise.all(
    shards.filter(({ files }) => files.length > 0)
      .map(({ files }) => checksumAll(root, files, progress)),
  );
  const sums = new Map(entries.map(({ path, sha256 }) => [path, sha256]));
  for (const entry of entries) {
    const sum = sums.get(entry.sameAs ?? entry.path);
    if (sum !== undefined) entry.sha256 = sum;
  }
}

/** sha256sum processes the files in order, and prints them in that order. */
async function checksumAll(
  root: string,
  files: Entry[],
  progress: Progress,
): Promise<void> {
  const names = files.map(({ path }) => `${root}/${path}\0`).join("");
  let at = 0;
  let rest = "";
  await run("xargs", ["-0", "-r", "sha256sum", "--zero", "--"], {
    input: Buffer.from(names, "latin1"),
    output: (chunk) => {
      const lines = (rest + chunk.toString("latin1")).split("\0");
      rest = lines.pop() ?? "";
      const read = files.slice(at, at += lines.length);
      read.forEach((entry, index) =>
        entry.sha256 = lines[index]?.slice(0, 64) ?? ""
      );
      progress(read.length, read.reduce((sum, { size }) => sum + size, 0));
    },
  });
  const missing = files[at];
  if (!missing) return;
  throw new Failure("failed", `Cannot read "${shown(missing.path)}"`);
}
