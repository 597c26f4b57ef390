// One request of a worker, and its reply.

import { Buffer } from "node:buffer";
import type { ClientRequest, IncomingMessage, ServerResponse } from "node:http";
import { forwardedHeaders } from "../../egress/proxy/headers.ts";
import type { ReplyFigures, ReplyObserver } from "../../usage/meter.ts";
import type { Grant } from "../grant.ts";
import { withCredential } from "./authorize.ts";
import type { Bounds } from "./bounds.ts";
import { unreachable } from "./refusal.ts";
import type { Gate } from "./gate.ts";
import type { Begun, Outgoing } from "./upstream.ts";

type Limits = Pick<Bounds, "connectMs" | "idleMs" | "keptBytes">;

export class Exchange {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #limits: Limits;
  /** The body as far as it was read; undefined if it is not kept. */
  #kept: Uint8Array[] | undefined;
  /** The request to the API; another one if it is repeated. */
  #outgoing: ClientRequest | undefined;
  /** Of the connection to the API. */
  #gate: Gate | undefined;
  #isWhole = false;
  /** What the worker gets. */
  status: number | undefined;
  bytesUp = 0;
  bytesDown = 0;
  /** Resolves when the reply was sent, or can no longer be. */
  readonly closed: Promise<void>;

  constructor(
    request: IncomingMessage,
    response: ServerResponse,
    limits: Limits,
  ) {
    this.#request = request;
    this.#response = response;
    this.#limits = limits;
    request.on("end", () => this.#isWhole = true);
    this.closed = new Promise((resolve) => whenClosed(response, resolve));
    whenClosed(response, () => {
      if (!response.writableFinished) this.#outgoing?.destroy();
    });
  }

  /** Keeps a small body while it is sent. */
  keepBody(): void {
    const size = Number(this.#request.headers["content-length"] ?? 0);
    const isChunked = this.#request.headers["transfer-encoding"] !== undefined;
    if (!isChunked && size <= this.#limits.keptBytes) this.#kept = [];
  }

  get canRepeat(): boolean {
    return this.#kept !== undefined;
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
    if (this.#response.destroyed) outgoing.destroy();
    this.#outgoing = outgoing;
    const { idleMs } = this.#limits;
    outgoing.setTimeout(
      idleMs,
      () => outgoing.destroy(new Error("it does not answer")),
    );
    const replied = headOf(outgoing);
    if (this.#kept && this.#isWhole) outgoing.end(Buffer.concat(this.#kept));
    else this.#pipeBody(outgoing);
    try {
      return await replied;
    } catch (error) {
      throw unreachable(error);
    }
  }

  #pipeBody(outgoing: ClientRequest): void {
    this.#request.on("data", (chunk: Uint8Array) => {
      this.bytesUp += chunk.length;
      this.#kept?.push(chunk);
    });
    this.#request.pipe(outgoing);
  }

  /** Passes the reply on as it comes; resolves at its end. */
  async passOn(
    reply: IncomingMessage,
    observer: ReplyObserver,
  ): Promise<ReplyFigures> {
    const response = this.#response;
    this.status = reply.statusCode ?? 502;
    response.writeHead(
      this.status,
      forwardedHeaders(reply.rawHeaders) as unknown as Record<string, string>,
    );
    // Under Deno 2.9.5, a reply without a body would never be finished after it.
    if (!isEmpty(reply, this.#request.method)) response.flushHeaders();
    reply.on("data", (chunk: Uint8Array) => {
      this.bytesDown += chunk.length;
      observer.bytes(chunk);
      if (response.write(chunk)) return;
      reply.pause();
      this.#gate?.hold();
    });
    response.on("drain", () => {
      this.#gate?.release();
      reply.resume();
    });
    reply.on("end", () => response.end());
    // Incomplete, which the client must notice.
    reply.on("error", () => response.destroy());
    reply.on("aborted", () => response.destroy());
    await this.closed;
    return observer.end(reply.complete ? "whole" : "cut");
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
  const closed = () => {
    response.off("close", closed);
    socket.off("close", closed);
    act();
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
