// Tries every way to leave a set-uid or set-gid file in a directory, and other calls that
// the workers' seccomp profile refuses; prints the name of each that worked.

import { lstatSync } from "node:fs";
import { constants } from "node:os";
import process from "node:process";

declare const Deno: {
  dlopen(
    file: string,
    symbols: Record<string, unknown>,
  ): { symbols: Record<string, (...args: unknown[]) => number | bigint> };
};

const directory = process.argv[2] ?? ".";
const { O_CREAT, O_RDWR } = constants as unknown as Record<string, number>;
const made = (O_CREAT ?? 0o100) | (O_RDWR ?? 2);
const O_TMPFILE = 0o20000000 |
  (process.arch === "arm64" ? 0o40000 : 0o200000);
const here = -100; // AT_FDCWD

const modes = ["buffer", "i32"];
const libc = Deno.dlopen("libc.so.6", {
  umask: { parameters: ["i32"], result: "i32" },
  chmod: { parameters: modes, result: "i32" },
  fchmod: { parameters: ["i32", "i32"], result: "i32" },
  fchmodat: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  creat: { parameters: modes, result: "i32" },
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  openat: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  mknod: { parameters: ["buffer", "i32", "i64"], result: "i32" },
  mknodat: { parameters: ["i32", "buffer", "i32", "i64"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  linkat: {
    parameters: ["i32", "buffer", "i32", "buffer", "i32"],
    result: "i32",
  },
  syscall4: {
    name: "syscall",
    parameters: ["i64", "i64", "buffer", "i64", "i64"],
    result: "i64",
  },
  openat2: {
    name: "syscall",
    parameters: ["i64", "i64", "buffer", "buffer", "i64"],
    result: "i64",
  },
  io_uring_setup: {
    name: "syscall",
    parameters: ["i64", "i64", "buffer"],
    result: "i64",
  },
  fsetxattr: {
    parameters: ["i32", "buffer", "buffer", "usize", "i32"],
    result: "i32",
  },
}).symbols as Record<string, (...args: unknown[]) => number | bigint>;

const text = (value: string) => new TextEncoder().encode(`${value}\0`);

const isSet = (path: string) =>
  ((lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o6000) !== 0;

libc["umask"]?.(0);

for (const bits of [0o4755, 0o2755, 0o6711]) {
  const tries: Record<string, (path: string, name: Uint8Array) => unknown> = {
    chmod: (_, name) => (file(name), libc["chmod"]?.(name, bits)),
    fchmod: (_, name) => libc["fchmod"]?.(file(name), bits),
    fchmodat: (_, name) => (
      file(name), libc["fchmodat"]?.(here, name, bits, 0)
    ),
    fchmodat2: (_, name) => (
      file(name), libc["syscall4"]?.(452, here, name, bits, 0)
    ),
    creat: (_, name) => libc["creat"]?.(name, bits),
    open: (_, name) => libc["open"]?.(name, made, bits),
    openat: (_, name) => libc["openat"]?.(here, name, made, bits),
    openat2: (_, name) => {
      const how = new BigUint64Array([BigInt(made), BigInt(bits), 0n]);
      return libc["openat2"]?.(437, here, name, new Uint8Array(how.buffer), 24);
    },
    mknod: (_, name) => libc["mknod"]?.(name, 0o100000 | bits, 0),
    mknodat: (_, name) => libc["mknodat"]?.(here, name, 0o100000 | bits, 0),
    tmpfile: (_, name) => {
      const open = libc["open"]?.(text(directory), O_TMPFILE | 2, bits);
      const link = text(`/proc/self/fd/${open}`);
      return libc["linkat"]?.(here, link, here, name, 0x400);
    },
  };
  for (const [name, attempt] of Object.entries(tries)) {
    const path = `${directory}/${name}-${bits.toString(8)}`;
    attempt(path, text(path));
    if (isSet(path)) console.log(`${name} ${bits.toString(8)}`);
  }
}

// A file capability is as dangerous as set-uid.
const capability = new Uint8Array(20);
capability.set([1, 0, 0, 2, 0, 0x20]);
const plain = file(text(`${directory}/capable`));
const named = text("security.capability");
if (libc["fsetxattr"]?.(plain, named, capability, 20, 0) === 0) {
  console.log("capability");
}
const device = text(`${directory}/device`);
if (libc["mknod"]?.(device, 0o060666, 0x800) === 0) console.log("device");
if (Number(libc["io_uring_setup"]?.(425, 8, new Uint8Array(120))) >= 0) {
  console.log("io_uring");
}
for (const [name, family] of [["AF_ALG", 38], ["AF_VSOCK", 40]] as const) {
  if (Number(libc["socket"]?.(family, family === 38 ? 5 : 1, 0)) >= 0) {
    console.log(name);
  }
}

function file(name: Uint8Array): number {
  return Number(libc["open"]?.(name, made, 0o755));
}
