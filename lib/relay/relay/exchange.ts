// One request of a worker, and its reply.

import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import { forwardedHeaders } from "../../egress/proxy/headers.ts";
import type { ReplyFigures, ReplyObserver } from "../../usage/meter.ts";
import type { Grant } from "../grant.ts";
import { withCredential } from "./authorize.ts";
import { RequestBody, type Room } from "./body.ts";
import type { Bounds } from "./bounds.ts";
import { unreachable } from "./refusal.ts";
import type { Gate, Valve } from "../../std/tls-gate.ts";
import type { Begun, Outgoing } from "./upstream.ts";

type Limits = Pick<
  Bounds,
  "idleMs" | "keptBytes" | "leftMs" | "leftUnansweredMs" | "leftBytes"
>;

export class Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #limits: Limits;
  readonly #body: RequestBody;
  /** The request to the API; another one if it is repeated. */
  #outgoing: ClientRequest | undefined;
  /** Of the connection to the API. */
  #gate: Gate | undefined;
  #reply: IncomingMessage | undefined;
  /** Whether the API may charge for it, although the worker leaves. */
  isCounted = false;
  /** Whether the worker has left before the end. */
  hasLeft = false;
  #isLast = false;
  #leftBytes = 0;
  #late: ReturnType<typeof setTimeout> | undefined;
  /** What the worker gets. */
  status: number | undefined;
  bytesDown = 0;
  /** Resolves when the reply was sent, or can no longer be. */
  readonly closed: Promise<void>;
  /** Resolves when no more is read of the reply. */
  readonly #over: Promise<void>;
  #end: () => void = () => {};

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    limits: Limits,
    gate: Valve,
    room: Room,
  ) {
    this.#request = request;
    this.#response = response;
    this.#limits = limits;
    this.#body = new RequestBody(request, gate, room);
    this.#over = new Promise((resolve) => this.#end = resolve);
    this.closed = new Promise((resolve) => whenClosed(response, resolve));
    whenClosed(response, () => {
      this.#body.forget();
      if (!response.writableFinished) this.#leave();
    });
  }

  get bytesUp(): number {
    return this.#body.bytes;
  }

  /** Keeps a small body while it is sent. */
  keepBody(): void {
    this.#body.keep(this.#limits.keptBytes);
  }

  /** Reads the rest of the body, which is not sent. */
  discardBody(): void {
    this.#body.resume();
  }

  get canRepeat(): boolean {
    return this.#body.isKept;
  }

  /** The request with the credential; as it is if that is undefined. */
  outgoing(grant: Grant, credential: string | undefined): Outgoing {
    const { method = "", url = "", rawHeaders } = this.#request;
    const headers = withCredential(rawHeaders, grant, credential);
    // Replies are not compressed, because their usage is read.
    return {
      method,
      path: url,
      headers: [...headers, "Accept-Encoding", "identity"],
    };
  }

  /** Sends the body; resolves with the reply's head. */
  async send({ request: outgoing, gate }: Begun): Promise<IncomingMessage> {
    this.#gate = gate;
    if (this.hasLeft) outgoing.destroy();
    this.#outgoing = outgoing;
    const { idleMs } = this.#limits;
    outgoing.setTimeout(
      idleMs,
      () => outgoing.destroy(new Error("it does not answer")),
    );
    const replied = headOf(outgoing);
    this.#body.sendTo(outgoing);
    try {
      return await replied;
    } catch (error) {
      throw unreachable(error);
    }
  }

  /** Passes the reply on as it comes; resolves at its end. */
  async passOn(
    reply: IncomingMessage,
    observer: ReplyObserver,
  ): Promise<ReplyFigures> {
    const response = this.#response;
    this.#body.forget();
    this.#reply = reply;
    if (!this.hasLeft) {
      this.status = reply.statusCode ?? 502;
      response.writeHead(
        this.status,
        forwardedHeaders(reply.rawHeaders) as unknown as Record<string, string>,
      );
      // Under Deno 2.9.5, a reply without a body would never be finished after it.
      if (!isEmpty(reply, this.#request.method)) response.flushHeaders();
    }
    reply.on("data", (chunk: Uint8Array) => {
      observer.bytes(chunk);
      if (this.hasLeft) return this.#readOn(chunk.length);
      this.bytesDown += chunk.length;
      if (response.write(chunk)) return;
      reply.pause();
      this.#gate?.hold();
    });
    response.on("drain", () => this.#resume());
    reply.on("end", () => response.end());
    // Incomplete, which the client must notice.
    reply.on("error", () => response.destroy());
    reply.on("aborted", () => response.destroy());
    for (const event of ["end", "error", "aborted", "close"]) {
      reply.on(event, this.#end);
    }
    await Promise.all([this.closed, this.#over]);
    clearTimeout(this.#late);
    return observer.end(reply.complete ? "whole" : "cut");
  }

  #resume(): void {
    this.#gate?.release();
    this.#reply?.resume();
  }

  /**
   * The worker has left. What the API charges for is read on for a while, as it would be
   * counted with less otherwise, see docs/adr/0041.
   */
  #leave(): void {
    this.hasLeft = true;
    if (!this.isCounted || !this.#body.isWhole) return this.#abandon();
    this.#endAfter(this.#limits.leftUnansweredMs);
    if (this.bytesDown > 0) this.#readOn(0);
    this.#resume();
  }

  #readOn(bytes: number): void {
    this.#leftBytes += bytes;
    if (this.#leftBytes > this.#limits.leftBytes) return this.#abandon();
    const type = this.#reply?.headers["content-type"] ?? "";
    // The API has generated the whole of another reply before it sends its first byte.
    if (this.#isLast || !/^text\/event-stream\b/i.test(type)) return;
    this.#isLast = true;
    this.#endAfter(this.#limits.leftMs);
  }

  #endAfter(timeMs: number): void {
    clearTimeout(this.#late);
    this.#late = setTimeout(() => this.#abandon(), timeMs);
  }

  #abandon(): void {
    clearTimeout(this.#late);
    this.#outgoing?.destroy();
    this.#end();
  }
}

function isEmpty(
  { statusCode = 0, headers }: IncomingMessage,
  method: string | undefined,
): boolean {
  return method === "HEAD" || [204, 304].includes(statusCode) ||
    headers["content-length"] === "0";
}

/** A response whose turn has not come gets no "close" when its connection closes. */
function whenClosed(response: ServerResponse, act: () => void): void {
  const { socket } = response.req;
  let isClosed = false;
  const closed = () => {
    response.off("close", closed);
    socket.off("close", closed);
    // Deno 2.9.5 calls it for the second event all the same.
    if (!isClosed) act();
    isClosed = true;
  };
  response.on("close", closed);
  socket.on("close", closed);
}

const maxInformational = 32;

function headOf(outgoing: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const invalid = () => {
      outgoing.destroy();
      reject(new Error("its reply is not valid"));
    };
    // Stays: an error without a listener would end the process.
    outgoing.on("error", reject);
    outgoing.on("close", () => reject(new Error("the connection was closed")));
    outgoing.on("response", (reply) => {
      if ((reply.statusCode ?? 0) >= 200) return resolve(reply);
      reply.on("error", () => {});
      invalid();
    });
    outgoing.on("upgrade", (_, socket) => {
      socket.destroy();
      invalid();
    });
    let informational = 0;
    outgoing.on("information", () => {
      if (++informational > maxInformational) invalid();
    });
  });
}
