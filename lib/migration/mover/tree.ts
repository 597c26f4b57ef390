// What a directory tree holds, byte for byte. Runs in the mover, on coreutils and
// findutils: Deno's own file calls take names for UTF-8, and theirs need not be.
// Names are strings of bytes here, a character each ("latin1").

import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { availableParallelism } from "node:os";
import { Failure } from "../../std/errors.ts";

export type EntryType = "file" | "directory" | "link" | "fifo" | "socket";

export interface Entry {
  /** Below the tree's root, "" for that; bytes. */
  path: string;
  type: EntryType;
  /** Of a file; 0 for the rest. */
  size: number;
  /** In octal. */
  mode: string;
  uid: number;
  gid: number;
  /** Seconds with their fraction. */
  mtime: string;
  /** Of a link; bytes. */
  target?: string;
  /** Of a file that has several names: the first of them in this tree. */
  sameAs?: string;
  /** Of a file. */
  sha256?: string;
}

const types: Record<string, EntryType> = {
  f: "file",
  d: "directory",
  l: "link",
  p: "fifo",
  s: "socket",
};

/** find's format: fields end with NUL, which no name has. */
const fields = ["%P", "%y", "%s", "%m", "%U", "%G", "%T@", "%l", "%D:%i", "%n"];
const format = fields.map((field) => `${field}\\0`).join("");

/** Every entry without its checksum, sorted by path. */
export async function scanTree(root: string): Promise<Entry[]> {
  const output = await run("find", [root, "-printf", format]);
  const words = output.toString("latin1").split("\0");
  const entries: (Entry & { inode: string })[] = [];
  for (let at = 0; at + fields.length < words.length; at += fields.length) {
    const field = (index: number) => words[at + index] ?? "";
    const type = types[field(1)];
    if (!type) {
      throw new Failure("failed", `Cannot move "${shown(field(0))}"`, {
        hint: "It is a device; move it away.",
      });
    }
    entries.push({
      path: field(0),
      type,
      size: type === "file" ? Number(field(2)) : 0,
      mode: field(3),
      uid: Number(field(4)),
      gid: Number(field(5)),
      mtime: field(6),
      ...(type === "link" ? { target: field(7) } : {}),
      inode: type === "file" && field(9) !== "1" ? field(8) : "",
    });
  }
  entries.sort((a, b) => a.path < b.path ? -1 : 1);
  const first = new Map<string, string>();
  return entries.map(({ inode, ...entry }) => {
    if (inode === "") return entry;
    const sameAs = first.get(inode);
    if (sameAs === undefined) first.set(inode, entry.path);
    return sameAs === undefined ? entry : { ...entry, sameAs };
  });
}

/** Adds the checksum of each file; `progress` hears of files and bytes. */
export async function addChecksums(
  root: string,
  entries: Entry[],
  progress: (files: number, bytes: number) => void,
): Promise<void> {
  const files = entries.filter(({ type }) => type === "file");
  // Of several names of one file, the first is enough.
  const distinct = files.filter(({ sameAs }) => sameAs === undefined);
  const shards: Entry[][] = Array.from(
    { length: availableParallelism() },
    () => [],
  );
  const load = shards.map(() => 0);
  for (const entry of distinct) {
    const least = load.indexOf(Math.min(...load));
    shards[least]?.push(entry);
    load[least] = (load[least] ?? 0) + entry.size + 10_000;
  }
  await Promise.all(
    shards.filter(({ length }) => length > 0).map((shard) =>
      checksumAll(root, shard, progress)
    ),
  );
  const sums = new Map(distinct.map(({ path, sha256 }) => [path, sha256]));
  for (const entry of files) {
    const sum = entry.sameAs === undefined
      ? entry.sha256
      : sums.get(entry.sameAs);
    if (sum !== undefined) entry.sha256 = sum;
  }
}

/** One sha256sum after another reads the shard's files, and tells them in order. */
async function checksumAll(
  root: string,
  shard: Entry[],
  progress: (files: number, bytes: number) => void,
): Promise<void> {
  let at = 0;
  let rest = "";
  await run("xargs", ["-0", "-r", "sha256sum", "--zero", "--"], {
    input: Buffer.from(
      shard.map(({ path }) => `${root}/${path}\0`).join(""),
      "latin1",
    ),
    output: (chunk) => {
      const lines = (rest + chunk.toString("latin1")).split("\0");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const entry = shard[at++];
        if (!entry) return;
        entry.sha256 = line.slice(0, 64);
        progress(1, entry.size);
      }
    },
  });
  const missing = shard.find(({ sha256 }) => sha256 === undefined);
  if (!missing) return;
  throw new Failure("failed", `Cannot read "${shown(missing.path)}"`);
}

/** A difference between two trees, with what it is in. */
export interface Difference {
  path: string;
  /** "missing", "extra", or the fields that differ. */
  what: string;
}

const compared = [
  "type",
  "size",
  "mode",
  "uid",
  "gid",
  "mtime",
  "target",
  "sameAs",
] as const;

/** What of `wanted` is not so in `found`; checksums count where both have them. */
export function compareTrees(wanted: Entry[], found: Entry[]): Difference[] {
  const others = new Map(found.map((entry) => [entry.path, entry]));
  const differences: Difference[] = [];
  for (const entry of wanted) {
    const other = others.get(entry.path);
    others.delete(entry.path);
    if (!other) {
      differences.push({ path: entry.path, what: "missing" });
      continue;
    }
    const fields: string[] = compared.filter((field) =>
      entry[field] !== other[field]
    );
    const both = entry.sha256 !== undefined && other.sha256 !== undefined;
    if (both && entry.sha256 !== other.sha256) fields.push("content");
    if (fields.length > 0) {
      differences.push({ path: entry.path, what: fields.join(", ") });
    }
  }
  for (const path of others.keys()) differences.push({ path, what: "extra" });
  return differences;
}

export interface RunOptions {
  input?: Buffer;
  /** Hears the output in the place of the result. */
  output?: (chunk: Buffer) => void;
  /** Hears of the process when it has begun. */
  started?: (pid: number) => void;
}

/** Runs a program; gives what it printed. Throws a Failure with its complaint. */
export async function run(
  program: string,
  args: (string | Buffer)[],
  { input, output, started }: RunOptions = {},
): Promise<Buffer> {
  const child = spawn(program, args as string[], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
  });
  started?.(child.pid ?? 0);
  const chunks: Buffer[] = [];
  let complaint = "";
  child.stdout.on("data", output ?? ((chunk: Buffer) => chunks.push(chunk)));
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = `${complaint}${chunk.toString()}`.slice(0, 2000);
  });
  child.stdin.on("error", () => {}); // it has ended before it read all
  child.stdin.end(input);
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve(code ?? 1));
  });
  if (code === 0) return Buffer.concat(chunks);
  const [line = ""] = complaint.trim().split("\n");
  throw new Failure("failed", line || `${program} failed with ${code}`);
}

/** A name of bytes for people: bytes that are no text are escaped. */
export function shown(path: string): string {
  const bytes = Buffer.from(path, "latin1");
  const text = bytes.toString("utf8");
  const isText = Buffer.from(text, "utf8").equals(bytes);
  return [...(isText ? text : path)].map((character) => {
    const code = character.codePointAt(0) ?? 0;
    const plain = code >= 0x20 && code !== 0x7f && (isText || code < 0x7f);
    return plain ? character : `\\x${code.toString(16).padStart(2, "0")}`;
  }).join("");
}
