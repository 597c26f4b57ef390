// Binds a port without listening on it, through Deno's FFI, as neither Node nor
// Deno has an API for it.
// https://man7.org/linux/man-pages/man7/socket.7.html (SO_REUSEPORT)

import { constants } from "node:os";

type Call = (...args: (number | Uint8Array)[]) => number;

declare const Deno: {
  dlopen(
    file: string,
    symbols: Record<string, unknown>,
  ): { symbols: Record<string, Call> & { errno: () => unknown } };
  UnsafePointerView: new (pointer: unknown) => { getInt32(): number };
};

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEPORT = 15;

let loaded: ReturnType<typeof Deno.dlopen>["symbols"] | undefined;

function libc() {
  return loaded ??= Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    setsockopt: {
      parameters: ["i32", "i32", "i32", "buffer", "u32"],
      result: "i32",
    },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
    errno: { name: "__errno_location", parameters: [], result: "pointer" },
  }).symbols;
}

/** Result of a bind: a descriptor, or the error's name (EADDRINUSE). */
export type Bound = { fd: number } | { code: string };

/**
 * Binds a port of a loopback address. While the descriptor is open, only sockets of
 * the same user with SO_REUSEPORT can bind the port: others get EADDRINUSE.
 */
export function bindPort(address: "127.0.0.1" | "::1", port: number): Bound {
  const { socket, setsockopt, bind, close } = libc();
  const family = address === "::1" ? AF_INET6 : AF_INET;
  const fd = socket!(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return { code: errorCode() };
  setsockopt!(fd, SOL_SOCKET, SO_REUSEPORT, new Uint8Array([1, 0, 0, 0]), 4);
  const name = socketAddress(family, port);
  if (bind!(fd, name, name.length) === 0) return { fd };
  const code = errorCode();
  close!(fd);
  return { code };
}

export function closePort(fd: number): void {
  libc()["close"]!(fd);
}

/**
 * struct sockaddr_in or sockaddr_in6; both supported architectures are
 * little-endian.
 */
function socketAddress(family: number, port: number): Uint8Array {
  const name = new Uint8Array(family === AF_INET6 ? 28 : 16);
  name.set([family, 0, port >> 8, port & 255]);
  if (family === AF_INET6) name[23] = 1;
  else name.set([127, 0, 0, 1], 4);
  return name;
}

function errorCode(): string {
  const errno = new Deno.UnsafePointerView(libc().errno()).getInt32();
  return Object.entries(constants.errno)
    .find(([, value]) => value === errno)?.[0] ?? `error ${errno}`;
}
