// Requests and replies over a unix socket, each one line of JSON. A peer that sends an
// invalid, oversized or incomplete line, or nothing, is disconnected and does not delay
// other peers.

import { chmodSync, chownSync, rmSync } from "node:fs";
import {
  createConnection,
  createServer,
  type Server,
  type Socket,
} from "node:net";
import type { Duplex } from "node:stream";
import { Failure, type FailureKind, fileFailure, messageOf } from "./errors.ts";
import type { Owner } from "./owned.ts";

/** Longer than any request; paths have at most 4096 bytes. */
const maxLineLength = 64 * 1024;

const defaultIdleTimeoutMs = 30_000;

/** How long the listener waits for pending replies when it closes. */
const closeGraceMs = 200;

export interface Peer {
  /** Whether the peer is still connected. */
  readonly open: boolean;
}

/** Handles a parsed request. Errors that it throws are sent to the peer. */
export type Handler = (request: unknown, peer: Peer) => Promise<unknown>;

type Reply =
  | { ok: true; result: unknown }
  | { ok: false; kind: FailureKind; message: string; hint?: string };

export interface Listener {
  close(): Promise<void>;
}

/** Listens on `path` with mode 0600, and replaces an existing socket. */
export async function listen(
  path: string,
  handle: Handler,
  options: { owner?: Owner; idleTimeoutMs?: number } = {},
): Promise<Listener> {
  const { owner, idleTimeoutMs = defaultIdleTimeoutMs } = options;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    serve(socket, handle, idleTimeoutMs);
  });
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  chmodSync(path, 0o600);
  if (owner) chownSync(path, owner.uid, owner.gid);
  return { close: () => closeServer(server, sockets) };
}

async function closeServer(
  server: Server,
  sockets: Set<Socket>,
): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  // Replies that are being prepared are still sent.
  for (const socket of sockets) {
    socket.end();
    setTimeout(() => socket.destroy(), closeGraceMs);
  }
  await closed;
}

function serve(socket: Socket, handle: Handler, idleTimeoutMs: number): void {
  let rest = "";
  let queue = Promise.resolve();
  socket.setEncoding("utf8");
  socket.setTimeout(idleTimeoutMs, () => socket.destroy());
  // A peer that disconnects early is not an error.
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      queue = queue.then(async () => {
        const reply = await replyTo(line, handle, {
          get open() {
            return !socket.destroyed;
          },
        });
        if (!socket.destroyed) socket.write(`${JSON.stringify(reply)}\n`);
      });
    }
    if (rest.length > maxLineLength) {
      socket.end(`${JSON.stringify(refusal("The line is too long"))}\n`);
      rest = "";
    }
  });
}

async function replyTo(
  line: string,
  handle: Handler,
  peer: Peer,
): Promise<Reply> {
  if (line.length > maxLineLength) return refusal("The line is too long");
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch {
    return refusal("The line is not valid JSON");
  }
  try {
    return { ok: true, result: await handle(request, peer) };
  } catch (error) {
    const failure = error instanceof Failure ? error : fileFailure(error);
    if (!failure) {
      return { ok: false, kind: "failed", message: messageOf(error) };
    }
    const { kind, message, hint } = failure;
    return { ok: false, kind, message, ...(hint ? { hint } : {}) };
  }
}

function refusal(message: string): Reply {
  return { ok: false, kind: "usage", message };
}

/** A connection for requests. */
export class Client {
  readonly #socket: Duplex;
  #rest = "";
  #waiting: { resolve(line: string): void; reject(error: Error): void }[] = [];
  #broken: Error | undefined;

  /** Takes the path of a socket, or a stream that leads to one. */
  constructor(socket: string | Duplex) {
    this.#socket = typeof socket === "string"
      ? createConnection(socket)
      : socket;
    this.#socket.setEncoding("utf8");
    this.#socket.on("data", (chunk: string) => {
      const lines = (this.#rest + chunk).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines) this.#waiting.shift()?.resolve(line);
    });
    this.#socket.on("error", (error) => this.#fail(error));
    const closed = () =>
      this.#fail(
        Object.assign(new Error("the connection was closed"), {
          code: "ECONNRESET",
        }),
      );
    // A stream that may be half open is not closed when the peer has ended it.
    this.#socket.on("end", closed).on("close", closed);
  }

  /**
   * Sends a request and returns its result. Throws the peer's Failure, or an error with a
   * `code` if the peer cannot be reached or does not reply in time.
   */
  async ask(request: unknown, timeoutMs: number): Promise<unknown> {
    if (this.#broken) throw this.#broken;
    const timer = setTimeout(() => {
      this.#fail(
        Object.assign(new Error("no answer in time"), { code: "ETIMEDOUT" }),
      );
    }, timeoutMs);
    try {
      const line = await new Promise<string>((resolve, reject) => {
        this.#waiting.push({ resolve, reject });
        this.#socket.write(`${JSON.stringify(request)}\n`);
      });
      const reply = JSON.parse(line) as Reply;
      if (reply.ok) return reply.result;
      throw new Failure(reply.kind, reply.message, { hint: reply.hint });
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  get broken(): boolean {
    return this.#broken !== undefined;
  }

  #fail(error: Error): void {
    this.#broken ??= error;
    this.#rest = "";
    for (const { reject } of this.#waiting.splice(0)) reject(this.#broken);
    this.#socket.destroy();
  }
}
