// A proxy for an HTTP service. It limits what clients can make
// the service and this process hold: the size of a request, the number of requests
// served at a time, their duration, and how slowly an answer is read.

import { Buffer } from "node:buffer";
import {
  createServer,
  type IncomingMessage,
  request as requestUpstream,
  type Server,
  type ServerResponse,
} from "node:http";
import { fewConnections } from "./few-connections.ts";
import { Lane, type Slots } from "./lane.ts";
import { ReadBytes } from "./read-bytes.ts";

export interface Bounds {
  /** Maximum size of a request's body. */
  bodyBytes: number;
  /**
   * A body known to be at most this large does not wait behind large ones. It is
   * read before its request takes a slot, so a client that sends no body delays no
   * other. An answer known to be at most this large is read from the service at
   * full speed, however slowly its client reads.
   */
  smallBytes: number;
  /** Time to receive a small body. */
  smallMs: number;
  /** Requests that are served at a time, and that wait for a slot. */
  slots: Record<Kind, Slots>;
  /** Large answers to requests of kinds that usually have small ones. */
  answers: Slots;
  /** How long a request waits for a slot before it gets a 503. */
  waitMs: number;
  /** Time to receive a head, also that of the first request. */
  headMs: number;
  /** How long a connection without a request is kept: clients close theirs sooner. */
  idleMs: number;
  /** Time to receive a body. */
  bodyMs: number;
  /** Time for a client to read, in addition to what `minRate` allows. */
  stallMs: number;
  /** Minimum rate at which a client reads an answer, in bytes per second. */
  minRate: number;
  /** Time for the service to answer. */
  answerMs: number;
  /**
   * More than all slots, so that there is an idle connection to close for a new
   * one.
   */
  connections: number;
}

/** A GET, a search, another request with a small body, or one with a large body. */
type Kind = "get" | "search" | "small" | "large";

/** Where the service listens. */
export type Place = { socketPath: string } | { host: string; port: number };

/** The resulting memory use: ADR 16. */
export const chromadbBounds: Bounds = {
  // ChromaDB's own limit, max_payload_size_bytes, is 40 MiB.
  bodyBytes: 40 * 1024 ** 2,
  smallBytes: 64 * 1024,
  smallMs: 5000,
  slots: {
    get: { served: 32, waiting: 128 },
    // ChromaDB holds each answer in memory.
    search: { served: 8, waiting: 64 },
    small: { served: 16, waiting: 64 },
    large: { served: 2, waiting: 64 },
  },
  answers: { served: 4, waiting: 16 },
  waitMs: 60_000,
  headMs: 10_000,
  idleMs: 60_000,
  bodyMs: 30_000,
  stallMs: 5000,
  minRate: 1024 ** 2,
  answerMs: 300_000,
  connections: 448,
};

export interface Refusal {
  status: number;
  why: string;
}

/** Why a request is not passed on; undefined if it is. */
export type Admit = (request: IncomingMessage) => Promise<Refusal | undefined>;

/**
 * A server, not yet listening, that passes requests on to the service at `place`, unless
 * `admit` refuses them.
 */
export function boundedProxy(
  place: Place,
  bounds: Bounds,
  admit: Admit = () => Promise.resolve(undefined),
): Server {
  const { get, search, small, large } = bounds.slots;
  const lanes: Record<Kind, Lane> = {
    get: new Lane(get),
    search: new Lane(search),
    small: new Lane(small),
    large: new Lane(large),
  };
  const answers = new Lane(bounds.answers);
  const readBytes = new ReadBytes();
  const options = {
    headersTimeout: bounds.headMs,
    requestTimeout: bounds.waitMs + bounds.bodyMs,
    connectionsCheckingInterval: bounds.headMs / 2,
    keepAliveTimeout: bounds.idleMs,
  };
  const server = createServer(options, async (request, response) => {
    if (!connections.admits(response)) return;
    const announced = bodySize(request, 0);
    if (announced !== undefined && announced > bounds.bodyBytes) {
      return refuse(response, 413, tooLarge(bounds));
    }
    const isSmall = announced !== undefined && announced <= bounds.smallBytes;
    const body = isSmall ? await wholeBody(request, bounds.smallMs) : undefined;
    if (isSmall && !body) {
      return refuse(response, 408, "The request takes too long");
    }
    connections.hold(response);
    const kind = isSmall ? kindOf(request) : "large";
    try {
      let leave = await lanes[kind].enter(bounds.waitMs, request.socket);
      const enterAnswers = async () => {
        if (kind === "search" || kind === "large") return;
        leave();
        leave = () => {};
        leave = await answers.enter(bounds.stallMs, request.socket);
      };
      try {
        const refused = await admit(request);
        if (refused) return refuse(response, refused.status, refused.why);
        await passOn(response, body, {
          place,
          bounds,
          enterAnswers,
          readBytes,
        });
      } finally {
        leave();
      }
    } catch {
      refuse(response, 503, "The service is busy; try again");
    }
  });
  const connections = fewConnections(server, bounds.connections, readBytes);
  return server;
}

/** The kind of a request with a small body. */
function kindOf({ method, url = "" }: IncomingMessage): Kind {
  if (method === "GET" || method === "HEAD") return "get";
  return /\/(get|query|search)\/?(\?|$)/.test(url) ? "search" : "small";
}

/** Undefined if the body is late, or the client has left. */
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

/** Undefined if the size is not announced. */
function bodySize(
  { headers }: IncomingMessage,
  unannounced: number,
): number | undefined {
  if (headers["transfer-encoding"] !== undefined) return undefined;
  return Number(headers["content-length"] ?? unannounced);
}

function tooLarge({ bodyBytes }: Bounds): string {
  return `A request can have at most ${bodyBytes} bytes`;
}

/** Headers that a proxy does not pass on: RFC 9110, section 7.6.1. */
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

/**
 * Resolves when the service is done with the request, whether or not the client
 * waits.
 */
function passOn(
  response: ServerResponse,
  body: Buffer | undefined,
  { place, bounds, enterAnswers, readBytes }: {
    place: Place;
    bounds: Bounds;
    enterAnswers: () => Promise<void>;
    readBytes: ReadBytes;
  },
): Promise<void> {
  const request = response.req;
  const upstream = requestUpstream({
    ...place,
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
    // The service still works on a complete request, so it keeps its slot.
    request.on("close", () => whole || upstream.destroy());
  }
  upstream.on("response", async (answer) => {
    const size = bodySize(answer, Infinity);
    const isSmall = size !== undefined && size <= bounds.smallBytes;
    try {
      if (!isSmall) await enterAnswers();
    } catch {
      return fail(503, "Too many large answers are being read; try again");
    }
    response.writeHead(answer.statusCode ?? 502, {
      ...endToEnd(answer.headers),
      // The socket's buffer has grown with the large body; close it to free the
      // memory.
      ...(body ? {} : { connection: "close" }),
    });
    // The service need not hold the rest of an answer that is not read.
    response.on("close", () => upstream.destroy());
    if (response.destroyed) upstream.destroy();
    else relay(answer, response, isSmall, bounds);
    answer.on("data", (chunk: Uint8Array) => readBytes.add(chunk.length));
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

/** Passes an answer on. Unless it is small, waits for its client, up to a limit. */
function relay(
  answer: IncomingMessage,
  response: ServerResponse,
  isSmall: boolean,
  { stallMs, minRate }: Bounds,
): void {
  let sent = 0;
  let waitedMs = 0;
  let since = 0;
  let late: ReturnType<typeof setTimeout> | undefined;
  const waitForClient = () => {
    since = performance.now();
    const allowedMs = stallMs + sent / minRate * 1000;
    // Reset, so that the kernel drops what it still has for the client.
    const end = () => response.req.socket.resetAndDestroy();
    late = setTimeout(end, allowedMs - waitedMs);
  };
  answer.on("data", (chunk: Uint8Array) => {
    sent += chunk.length;
    if (response.write(chunk) || isSmall || response.destroyed) return;
    answer.pause();
    waitForClient();
    response.once("drain", () => {
      clearTimeout(late);
      waitedMs += performance.now() - since;
      answer.resume();
    });
  });
  answer.on("end", () => {
    waitForClient();
    response.end();
  });
  answer.on("error", () => response.destroy());
  response.on("finish", () => clearTimeout(late));
  response.on("close", () => clearTimeout(late));
}

/** Drains the rest of the request: its client may not read the answer before. */
function refuse(response: ServerResponse, status: number, why: string): void {
  if (response.destroyed || response.writableEnded) return;
  if (response.headersSent) return void response.destroy();
  response.writeHead(status, {
    "content-type": "application/json",
    ...(status === 503 ? { "retry-after": "1" } : {}),
  });
  // The form of ChromaDB's own errors.
  response.end(JSON.stringify({ error: "HAL9000Error", message: why }));
  response.req.resume();
}
