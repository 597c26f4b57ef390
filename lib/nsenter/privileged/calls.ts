// Linux system calls for mounts and namespaces, through Deno's FFI, as Node has
// none. They throw a CallError if the kernel refuses.
// https://man7.org/linux/man-pages/man2/open_tree.2.html

import { constants } from "node:os";
import process from "node:process";

type Argument = number | bigint | Uint8Array;
type Call = (...args: Argument[]) => number | bigint;

declare const Deno: {
  dlopen(
    file: string,
    symbols: Record<string, unknown>,
  ): { symbols: Record<string, Call> & { errno: () => unknown } };
  UnsafePointerView: new (pointer: unknown) => { getInt32(): number };
};

const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const CLONE_FS = 0x200;
const CLONE_NEWNET = 0x40000000;
const CLONE_NEWNS = 0x20000;
const MNT_DETACH = 2;
const MOUNT_ATTR_RDONLY = 1n;
const MOUNT_ATTR_NOSUID = 2n;
const MOUNT_ATTR_NODEV = 4n;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOVE_MOUNT_T_EMPTY_PATH = 0x40;
const MS_PRIVATE = 1n << 18n;
const OPEN_TREE_CLONE = 1;
const O_CLOEXEC = 0o2000000;
const O_DIRECTORY = process.arch === "arm64" ? 0o40000 : 0o200000;
const O_PATH = 0o10000000;
const RESOLVE_NO_MAGICLINKS = 2n;
const RESOLVE_NO_SYMLINKS = 4n;
const RESOLVE_BENEATH = 8n;

export class CallError extends Error {
  readonly call: string;
  /** Error name, e.g. ENOENT. */
  readonly code: string;

  constructor(call: string, errno: number) {
    const code = Object.entries(constants.errno)
      .find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
    super(`${call}: ${code}`);
    this.name = "CallError";
    this.call = call;
    this.code = code;
  }
}

/**
 * glibc has no wrappers for these; their numbers are the same on every
 * architecture.
 */
function system(number: number, ...parameters: string[]) {
  return {
    call: {
      name: "syscall",
      parameters: ["i64", ...parameters],
      result: "i64",
    },
    number,
  };
}

const systemCalls = {
  open_tree: system(428, "i64", "buffer", "i64"),
  move_mount: system(429, "i64", "buffer", "i64", "buffer", "i64"),
  openat2: system(437, "i64", "buffer", "buffer", "i64"),
  mount_setattr: system(442, "i64", "buffer", "i64", "buffer", "i64"),
};

let loaded: ReturnType<typeof Deno.dlopen>["symbols"] | undefined;

/** Loaded on the first call, because not every process makes one. */
function libc() {
  loaded ??= Deno.dlopen("libc.so.6", {
    ...Object.fromEntries(
      Object.entries(systemCalls).map(([name, { call }]) => [name, call]),
    ),
    open: { parameters: ["buffer", "i32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    setns: { parameters: ["i32", "i32"], result: "i32" },
    unshare: { parameters: ["i32"], result: "i32" },
    setfsuid: { parameters: ["u32"], result: "i32" },
    umount2: { parameters: ["buffer", "i32"], result: "i32" },
    errno: { name: "__errno_location", parameters: [], result: "pointer" },
  }).symbols;
  return loaded;
}

function call(name: string, ...args: Argument[]): number {
  const symbols = libc();
  const number = systemCalls[name as keyof typeof systemCalls]?.number;
  const run = symbols[name] as Call;
  const result = Number(
    number === undefined ? run(...args) : run(number, ...args),
  );
  if (result >= 0) return result;
  const errno = new Deno.UnsafePointerView(symbols.errno()).getInt32();
  throw new CallError(name, errno);
}

const text = (value: string) => new TextEncoder().encode(`${value}\0`);
const words = (...values: bigint[]) =>
  new Uint8Array(new BigUint64Array(values).buffer);

/** A descriptor of a namespace (/proc/PID/ns/*), or of a directory. */
export function openPath(path: string, kind: "namespace" | "directory") {
  const flags = kind === "directory" ? O_PATH | O_DIRECTORY : 0;
  return call("open", text(path), flags | O_CLOEXEC);
}

/** A descriptor of `path` beneath the directory `root`, without following links. */
export function openBeneath(root: number, path: string): number {
  const how = words(
    BigInt(O_PATH | O_CLOEXEC),
    0n,
    RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
  );
  return call("openat2", root, text(path === "" ? "." : path), how, how.length);
}

export function closeDescriptor(descriptor: number): void {
  call("close", descriptor);
}

/**
 * A detached copy of the mounts at and below a file or directory. Later mounts on the host
 * do not propagate to it. It is mounted nosuid and nodev.
 */
export function copyMounts(place: number, readOnly: boolean): number {
  const empty = text("");
  const tree = call(
    "open_tree",
    place,
    empty,
    OPEN_TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE,
  );
  const attributes = words(
    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (readOnly ? MOUNT_ATTR_RDONLY : 0n),
    0n,
    MS_PRIVATE,
    0n,
  );
  try {
    call(
      "mount_setattr",
      tree,
      empty,
      AT_EMPTY_PATH | AT_RECURSIVE,
      attributes,
      attributes.length,
    );
  } catch (error) {
    closeDescriptor(tree);
    throw error;
  }
  return tree;
}

/** Attaches a detached copy in this thread's mount namespace, without following links. */
export function attachMounts(tree: number, target: string): void {
  const root = openPath("/", "directory");
  try {
    const place = openBeneath(root, target.slice(1));
    try {
      const flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
      call("move_mount", tree, text(""), place, text(""), flags);
    } finally {
      closeDescriptor(place);
    }
  } finally {
    closeDescriptor(root);
  }
}

export function detachMounts(target: string): void {
  call("umount2", text(target), MNT_DETACH);
}

/** Required before the first setns: stops sharing the working directory. */
export function unshareDirectories(): void {
  call("unshare", CLONE_FS);
}

/** Moves this thread into a namespace of that kind. */
export function enterNamespace(
  descriptor: number,
  kind: "mount" | "network",
): void {
  call("setns", descriptor, kind === "mount" ? CLONE_NEWNS : CLONE_NEWNET);
}

/**
 * Makes new sockets and files of this thread belong to a user. Unlike setuid(2), it concerns
 * no other thread, and can be undone: setfsuid(2).
 */
export function actAs(uid: number): void {
  call("setfsuid", uid);
  // It reports no error, only who it was before; no user has the highest number.
  if (call("setfsuid", 0xffffffff) === uid) return;
  throw new CallError("setfsuid", constants.errno.EPERM);
}
