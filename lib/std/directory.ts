// Reads a directory that may be hostile. It is opened without following a link, read
// one entry at a time, and its entries are reached through its descriptor, so that
// replacing the directory by a link has no effect. Deno's own calls read all names
// before they return the first (300,000: 2.4 s, 360 MB), so under Deno the C library is
// called.

import { Buffer } from "node:buffer";
import {
  closeSync,
  constants,
  lstatSync,
  opendirSync,
  openSync,
  type Stats,
} from "node:fs";

import { Failure } from "./errors.ts";
import { hasProc } from "./proc.ts";

export type Kind = "file" | "directory" | "other";

export interface Entry {
  name: string;
  kind: Kind;
}

export interface EntryStat {
  kind: Kind;
  sizeBytes: number;
  /** Clamped to the time between 1970 and now. */
  mtimeMs: number;
}

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;

export class Directory {
  readonly #descriptor: number;
  readonly #path: string;

  private constructor(descriptor: number, path: string) {
    this.#descriptor = descriptor;
    this.#path = hasProc() ? `/proc/self/fd/${descriptor}` : path;
  }

  /** Opens a directory; undefined if the path is missing or is not a directory. */
  static open(path: string): Directory | undefined {
    try {
      return new Directory(
        openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK),
        path,
      );
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (absent.includes(code ?? "")) return undefined;
      throw error;
    }
  }

  /** Opens a subdirectory. */
  enter(name: string): Directory | undefined {
    return Directory.open(this.at(name));
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /**
   * A path to an entry that stays valid if the directory is moved or replaced. Not
   * without a /proc, as on macOS.
   */
  at(name: string): string {
    return `${this.#path}/${name}`;
  }

  /** Unordered, without "." and "..". */
  *entries(): Generator<Entry> {
    if (libc()) yield* entriesOf(this.#descriptor);
    else yield* entriesByNode(this.#path);
  }

  /** Does not follow links; undefined if the entry is missing. */
  stat(name: string): EntryStat | undefined {
    if (libc()) return statAt(this.#descriptor, name);
    const stat = lstatSync(this.at(name), { throwIfNoEntry: false });
    return stat && {
      kind: kindOf(stat),
      sizeBytes: stat.size,
      mtimeMs: pastMs(stat.mtimeMs),
    };
  }
}

/** ENOTDIR and ELOOP: the path is a link, or is not a directory. */
const absent = ["ENOENT", "ENOTDIR", "ELOOP"];

/** Calls `act` with the open directory; undefined if there is no directory. */
export function inDirectory<T>(
  path: string,
  act: (directory: Directory) => T,
): T | undefined {
  const directory = Directory.open(path);
  if (!directory) return undefined;
  try {
    return act(directory);
  } finally {
    directory.close();
  }
}

/** Throws a Failure if there are more; empty if there is no directory. */
export function namesUpTo(max: number, path: string): string[] {
  return inDirectory(path, (directory) => {
    const names: string[] = [];
    for (const { name } of directory.entries()) {
      if (names.push(name) <= max) continue;
      throw new Failure("unsafe", `${path} has more than ${max} entries`);
    }
    return names;
  }) ?? [];
}

function kindOf(stat: Pick<Stats, "isFile" | "isDirectory">): Kind {
  return stat.isFile() ? "file" : stat.isDirectory() ? "directory" : "other";
}

function* entriesByNode(path: string): Generator<Entry> {
  const directory = opendirSync(path, { bufferSize: 256 });
  try {
    for (let entry; (entry = directory.readSync()) !== null;) {
      yield { name: entry.name, kind: kindOf(entry) };
    }
  } finally {
    directory.closeSync();
  }
}

interface Library {
  getdents64(descriptor: number, buffer: Uint8Array, bytes: bigint): bigint;
  statx(
    descriptor: number,
    name: Uint8Array,
    flags: number,
    mask: number,
    buffer: Uint8Array,
  ): number;
}

const runtime = globalThis as {
  Deno?: {
    dlopen(
      file: string,
      symbols: Record<string, unknown>,
    ): { symbols: unknown };
  };
};

let library: Library | undefined;

function libc(): Library | undefined {
  if (!runtime.Deno || !hasProc()) return undefined;
  library ??= runtime.Deno.dlopen("libc.so.6", {
    getdents64: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    statx: {
      parameters: ["i32", "buffer", "i32", "u32", "buffer"],
      result: "i32",
    },
  }).symbols as Library;
  return library;
}

/** Values of d_type, see getdents(2); some file systems do not set it. */
const kinds: Record<number, Kind | undefined> = { 4: "directory", 8: "file" };

/** Offsets in linux_dirent64: reclen at 16, type at 18, name at 19. */
function* entriesOf(descriptor: number): Generator<Entry> {
  const buffer = Buffer.alloc(32 * 1024);
  while (true) {
    const bytes = Number(
      libc()?.getdents64(descriptor, buffer, BigInt(buffer.length)),
    );
    if (bytes < 0) throw new Error("Cannot read an open directory");
    if (bytes === 0) return;
    for (let at = 0; at < bytes; at += buffer.readUInt16LE(at + 16)) {
      const end = buffer.indexOf(0, at + 19);
      const name = buffer.toString("utf8", at + 19, end);
      if (name === "." || name === "..") continue;
      const type = buffer[at + 18] ?? 0;
      const kind = type === 0
        ? statAt(descriptor, name)?.kind ?? "other"
        : kinds[type] ?? "other";
      yield { name, kind };
    }
  }
}

const AT_SYMLINK_NOFOLLOW = 0x100;
const STATX_BASIC_STATS = 0x7ff;

/** Allocated once: there may be hundreds of thousands of calls, never concurrent. */
const statBuffer = Buffer.alloc(256);
/** A name has at most 255 bytes; each invalid byte takes three bytes as UTF-8. */
const nameBuffer = Buffer.alloc(1024);

/** Offsets in struct statx, the same on every architecture, see statx(2). */
function statAt(descriptor: number, name: string): EntryStat | undefined {
  const buffer = statBuffer;
  nameBuffer[nameBuffer.write(name, 0, nameBuffer.length - 1)] = 0;
  const failed = libc()?.statx(
    descriptor,
    nameBuffer,
    AT_SYMLINK_NOFOLLOW,
    STATX_BASIC_STATS,
    buffer,
  );
  if (failed !== 0) return undefined;
  const format = buffer.readUInt16LE(28) & constants.S_IFMT;
  const kind = format === constants.S_IFREG
    ? "file"
    : format === constants.S_IFDIR
    ? "directory"
    : "other";
  return {
    kind,
    sizeBytes: Number(buffer.readBigUInt64LE(40)),
    mtimeMs: pastMs(
      Number(buffer.readBigInt64LE(112)) * 1000 +
        Math.floor(buffer.readUInt32LE(120) / 1e6),
    ),
  };
}

/** The owner of a file can set any time, even one that a Date cannot represent. */
function pastMs(timeMs: number): number {
  return Math.min(Math.max(timeMs, 0), Date.now());
}
