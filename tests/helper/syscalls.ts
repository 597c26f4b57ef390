// Runs in a worker and tries the kernel's calls that lead out of a container or change
// the machine. Prints each call that the kernel or the seccomp profile does not refuse.

import { openSync, readFileSync } from "node:fs";
import process from "node:process";

declare const Deno: {
  dlopen(file: string, symbols: object): {
    symbols: {
      syscall(...args: bigint[]): bigint;
      __errno_location(): object;
    };
  };
  UnsafePointer: {
    of(buffer: Uint8Array): object;
    value(pointer: object): bigint;
  };
  UnsafePointerView: {
    getArrayBuffer(pointer: object, bytes: number): ArrayBuffer;
  };
};

const refusals = [1, 13, 38]; // EPERM, EACCES, ENOSYS

const CLONE_NEWNS = 0x20000;
const CLONE_NEWPID = 0x20000000;
const CLONE_NEWNET = 0x40000000;
const CLONE_NEWUSER = 0x10000000;
const AT_FDCWD = -100;
const [AF_INET, AF_PACKET, SOCK_RAW] = [2, 17, 3];
const bytes = (text: string) => new TextEncoder().encode(`${text}\0`);
const own = (name: string) => openSync(`/proc/self/ns/${name}`, "r");
/** With too many nanoseconds: does nothing even if the call is allowed. */
const invalidTime = new Uint8Array(
  new BigUint64Array([0n, BigInt(2e9)]).buffer,
);
const zeroes = () => new Uint8Array(256);
/** struct clone_args: flags, and no child. */
const cloneArgs = (flags: number) =>
  new Uint8Array(
    new BigUint64Array([BigInt(flags), ...Array(7).fill(0n)]).buffer,
  );
/** struct iovec for 8 bytes of a process: its memory's first mapping. */
const vector = () => {
  const start = readFileSync("/proc/1/maps", "utf8").split("-")[0];
  return new Uint8Array(new BigUint64Array([BigInt(`0x${start}`), 8n]).buffer);
};

/**
 * Numbers on x86-64 and arm64, then arguments. Calls that would harm the machine have
 * invalid ones: EINVAL also shows that they are not refused.
 */
type Call = [
  name: string,
  x64: number,
  arm64: number,
  ...(number | Uint8Array)[],
];
const calls: Call[] = [
  ["unshare user", 272, 97, CLONE_NEWUSER],
  ["unshare mount", 272, 97, CLONE_NEWNS],
  ["unshare net", 272, 97, CLONE_NEWNET],
  ["unshare pid", 272, 97, CLONE_NEWPID],
  ["clone3", 435, 435, cloneArgs(CLONE_NEWUSER), 64],
  ["setns net", 308, 268, own("net"), CLONE_NEWNET],
  ["setns mount", 308, 268, own("mnt"), CLONE_NEWNS],
  ["chroot", 161, 51, bytes("/tmp")],
  ["pivot_root", 155, 41, bytes("/tmp"), bytes("/tmp")],
  ["mount", 165, 40, bytes("none"), bytes("/tmp"), bytes("tmpfs"), 0, 0],
  ["bind mount", 165, 40, bytes("/"), bytes("/tmp"), bytes(""), 4096, 0],
  ["remount", 165, 40, bytes(""), bytes("/"), bytes(""), 32, 0],
  ["umount", 166, 39, bytes("/workspace"), 2],
  ["open_tree", 428, 428, AT_FDCWD, bytes("/"), 1],
  ["move_mount", 429, 429, AT_FDCWD, bytes("/"), AT_FDCWD, bytes("/tmp"), 0],
  ["fsopen", 430, 430, bytes("tmpfs"), 0],
  ["mount_setattr", 442, 442, AT_FDCWD, bytes("/"), 0, zeroes(), 32],
  ["add_key", 248, 217, bytes("user"), bytes("k"), bytes("v"), 1, -3],
  ["request_key", 249, 218, bytes("user"), bytes("k"), 0, -3],
  ["keyctl", 250, 219, 0, -3, 1],
  ["bpf", 321, 280, 0, zeroes(), 72],
  ["perf_event_open", 298, 241, zeroes(), 0, -1, -1, 0],
  ["userfaultfd", 323, 282, 0],
  ["init_module", 175, 105, zeroes(), 256, bytes("")],
  ["finit_module", 313, 273, 0, bytes(""), 0],
  ["delete_module", 176, 106, bytes("none"), 0],
  ["kexec_load", 246, 104, 0, 0, zeroes(), 0],
  ["iopl", 172, -1, 3],
  ["ioperm", 173, -1, 0x80, 1, 1],
  ["open_by_handle_at", 304, 265, AT_FDCWD, zeroes(), 0],
  ["name_to_handle_at", 303, 264, AT_FDCWD, bytes("/"), zeroes(), zeroes(), 0],
  ["process_vm_readv", 310, 270, 1, zeroes(), 1, vector(), 1, 0],
  ["kcmp", 312, 272, 1, process.pid, 0, 0, 0],
  ["setuid", 105, 146, 4321],
  ["setgid", 106, 144, 4321],
  ["setgroups", 116, 159, 1, zeroes()],
  ["raw socket", 41, 198, AF_INET, SOCK_RAW, 1],
  ["packet socket", 41, 198, AF_PACKET, SOCK_RAW, 3],
  ["quotactl", 179, 60, 0x80000100 | 0, bytes("/"), 0, zeroes()],
  ["swapon", 167, 224, bytes("/workspace"), 0],
  ["reboot", 169, 142, 0, 0, 0, 0],
  ["settimeofday", 164, 170, invalidTime, 0],
  ["clock_settime", 227, 112, 0, invalidTime],
  ["adjtimex", 159, 171, new Uint8Array([1, ...new Uint8Array(255)])],
  ["sethostname", 170, 161, bytes("evil"), 4],
  ["acct", 163, 89, bytes("/tmp/acct")],
  ["syslog", 103, 116, 3, zeroes(), 8],
  ["fanotify_init", 300, 262, 0, 0],
  ["vhangup", 153, 58],
];

const { symbols: { syscall, __errno_location } } = Deno.dlopen("libc.so.6", {
  syscall: { parameters: Array(7).fill("u64"), result: "i64" },
  __errno_location: { parameters: [], result: "pointer" },
});
const errno = new Int32Array(
  Deno.UnsafePointerView.getArrayBuffer(__errno_location(), 4),
);

const argument = (value: number | Uint8Array) =>
  typeof value === "number"
    ? BigInt.asUintN(64, BigInt(value))
    : Deno.UnsafePointer.value(Deno.UnsafePointer.of(value));

let refused = 0;
for (const [name, x64, arm64, ...given] of calls) {
  const number = process.arch === "arm64" ? arm64 : x64;
  if (number < 0) continue;
  const args = [...given, ...Array(6).fill(0)].slice(0, 6).map(argument);
  const result = syscall(BigInt(number), ...args);
  const code = result < 0n ? errno[0] ?? 0 : 0;
  if (result < 0n && refusals.includes(code)) refused++;
  else console.log(`${name}: ${result < 0n ? `errno ${code}` : "worked"}`);
}
console.log(`refused ${refused}`);
