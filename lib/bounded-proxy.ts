// An HTTP service behind a unix socket, with bounds for what its clients can make it
// hold: the size of a request, how many are served at a time, and for how long.

import { Buffer } from "node:buffer";
import {
  createServer,
  type IncomingMessage,
  request as requestUpstream,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";

export interface Bounds {
  /** Of the body of one request. */
  bodyBytes: number;
  /**
   * A body that is known to be no larger does not wait behind large ones. It is read
   * before its request takes a place, so a client that sends no body delays no other.
   */
  smallBytes: number;
  /** For a small body to come in. */
  smallMs: number;
  /** Requests that are served at a time, and that wait for that. */
  small: Places;
  large: Places;
  /** For a turn, before a 503. */
  waitMs: number;
  /** For a body to come in. */
  bodyMs: number;
  /** For a client to go on reading. */
  stallMs: number;
  /** For the service to answer. */
  answerMs: number;
  connections: number;
}

interface Places {
  served: number;
  waiting: number;
}

export const chromadbBounds: Bounds = {
  // ChromaDB's own limit, max_payload_size_bytes, is 40 MiB.
  bodyBytes: 40 * 1024 ** 2,
  smallBytes: 64 * 1024,
  smallMs: 5000,
  small: { served: 32, waiting: 512 },
  large: { served: 2, waiting: 64 },
  waitMs: 60_000,
  bodyMs: 30_000,
  stallMs: 5000,
  answerMs: 300_000,
  connections: 1024,
};

/** A server, not listening yet, that passes requests on to the socket `path`. */
export function boundedProxy(path: string, bounds: Bounds): Server {
  const lanes = {
    small: new Lane(bounds.small),
    large: new Lane(bounds.large),
  };
  const server = createServer(async (request, response) => {
    const announced = bodySize(request);
    if (announced !== undefined && announced > bounds.bodyBytes) {
      return refuse(response, 413, tooLarge(bounds));
    }
    const small = announced !== undefined && announced <= bounds.smallBytes;
    const body = small ? await wholeBody(request, bounds.smallMs) : undefined;
    if (small && !body) {
      return refuse(response, 408, "The request takes too long");
    }
    hold(response);
    lanes[small ? "small" : "large"].enter(bounds.waitMs, response).then(
      (leave) => passOn(path, bounds, response, body).finally(leave),
      () => refuse(response, 503, "The service is busy; try again"),
    );
  });
  const hold = keepIdleFew(server, bounds.connections);
  server.requestTimeout = bounds.waitMs + bounds.bodyMs;
  return server;
}

/** Undefined where it does not come in time, or its client has gone. */
function wholeBody(
  request: IncomingMessage,
  withinMs: number,
): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const chunks: Uint8Array[] = [];
    const late = setTimeout(() => resolve(undefined), withinMs);
    request.on("data", (chunk: Uint8Array) => chunks.push(chunk));
    request.on("end", () => resolve(Buffer.concat(chunks)));
    request.on("error", () => resolve(undefined));
    request.on("close", () => {
      clearTimeout(late);
      resolve(undefined);
    });
  });
}

/** Undefined where only its end will show. */
function bodySize({ headers }: IncomingMessage): number | undefined {
  if (headers["transfer-encoding"] !== undefined) return undefined;
  return Number(headers["content-length"] ?? 0);
}

function tooLarge({ bodyBytes }: Bounds): string {
  return `A request has ${bodyBytes} bytes at most`;
}

/** So many at a time; the others wait, the first that came first. */
class Lane {
  #free: number;
  readonly #mostWaiting: number;
  readonly #waiting: (() => void)[] = [];

  constructor({ served, waiting }: Places) {
    this.#free = served;
    this.#mostWaiting = waiting;
  }

  /**
   * Gives what to call at the end; rejects where too many wait already, it takes too
   * long, or the client has gone.
   */
  enter(waitMs: number, response: ServerResponse): Promise<() => void> {
    const leave = () => {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    };
    if (this.#free > 0) {
      this.#free--;
      return Promise.resolve(leave);
    }
    if (this.#waiting.length >= this.#mostWaiting) {
      return Promise.reject(new Error("Too many wait"));
    }
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        response.off("close", giveUp);
      };
      const enter = () => {
        settle();
        resolve(leave);
      };
      const giveUp = () => {
        settle();
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(new Error("No turn in time"));
      };
      const timer = setTimeout(giveUp, waitMs);
      response.on("close", giveUp);
      this.#waiting.push(enter);
    });
  }
}

/** Of one connection, which HTTP does not pass on: RFC 9110, section 7.6.1. */
const hopByHopHeaders = [
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
];

function endToEnd(headers: NodeJS.Dict<string | string[]>) {
  const named = String(headers["connection"] ?? "").toLowerCase().split(/,\s*/);
  return Object.fromEntries(
    Object.entries(headers).filter(([name, value]) =>
      value !== undefined && !hopByHopHeaders.includes(name) &&
      !named.includes(name)
    ),
  );
}

/** Resolves when the service has done with the request, whether or not the client waits. */
function passOn(
  socketPath: string,
  bounds: Bounds,
  response: ServerResponse,
  body: Buffer | undefined,
): Promise<void> {
  const request = response.req;
  const upstream = requestUpstream({
    socketPath,
    method: request.method,
    path: request.url,
    headers: endToEnd(request.headers),
    agent: false,
  });
  const fail = (status: number, why: string) => {
    refuse(response, status, why);
    upstream.destroy();
  };
  const late = setTimeout(
    () => fail(504, "The service takes too long"),
    bounds.answerMs,
  );
  const slow = setTimeout(
    () => fail(408, "The request takes too long"),
    bounds.bodyMs,
  );
  let sent = 0;
  let whole = false;
  const end = () => {
    whole = true;
    clearTimeout(slow);
    upstream.end(body?.length ? body : undefined);
  };
  if (body) end();
  else {
    request.on("data", (chunk: Uint8Array) => {
      sent += chunk.length;
      if (sent > bounds.bodyBytes) return fail(413, tooLarge(bounds));
      if (upstream.destroyed || upstream.write(chunk)) return;
      request.pause();
      upstream.once("drain", () => request.resume());
    });
    request.on("end", end);
    // A request that is whole is being worked on, client or not: its turn is not over.
    request.on("close", () => whole || upstream.destroy());
  }
  upstream.on("response", (answer) => {
    response.writeHead(answer.statusCode ?? 502, endToEnd(answer.headers));
    relay(answer, response, bounds.stallMs);
  });
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(late);
      clearTimeout(slow);
      resolve();
    };
    upstream.on("close", done);
    upstream.on("error", () => {
      fail(502, "The service is not running");
      done();
    });
  });
}

/** Passes an answer on; one that the client does not read any more is read to its end. */
function relay(
  answer: IncomingMessage,
  response: ServerResponse,
  stallMs: number,
): void {
  let stalled: ReturnType<typeof setTimeout> | undefined;
  const goOn = () => {
    clearTimeout(stalled);
    answer.resume();
  };
  response.on("close", goOn);
  answer.on("data", (chunk: Uint8Array) => {
    if (response.destroyed || response.write(chunk)) return;
    answer.pause();
    stalled = setTimeout(() => response.destroy(), stallMs);
    response.once("drain", goOn);
  });
  answer.on("end", () => response.end());
  answer.on("error", () => response.destroy());
}

/** What is left of the request is read and dropped: its client may not look before. */
function refuse(response: ServerResponse, status: number, why: string): void {
  if (response.destroyed || response.writableEnded) return;
  if (response.headersSent) return void response.destroy();
  response.writeHead(status, {
    "content-type": "application/json",
    ...(status === 503 ? { "retry-after": "1" } : {}),
  });
  // As ChromaDB's own errors look.
  response.end(JSON.stringify({ error: "HAL9000Error", message: why }));
  response.req.resume();
}

/**
 * Where there are too many connections, the one that is idle for longest goes. One is
 * idle until it is held for a response; gives what holds it.
 */
function keepIdleFew(
  server: Server,
  most: number,
): (response: ServerResponse) => void {
  const busy = new Map<Socket, number>();
  const idle = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    idle.add(socket);
    socket.on("close", () => {
      idle.delete(socket);
      busy.delete(socket);
    });
    if (idle.size + busy.size <= most) return;
    const [oldest = socket] = idle;
    oldest.destroy();
  });
  return (response) => {
    const { socket } = response.req;
    idle.delete(socket);
    busy.set(socket, (busy.get(socket) ?? 0) + 1);
    response.on("close", () => {
      const left = (busy.get(socket) ?? 1) - 1;
      if (left > 0) return void busy.set(socket, left);
      busy.delete(socket);
      if (!socket.destroyed) idle.add(socket);
    });
  };
}
