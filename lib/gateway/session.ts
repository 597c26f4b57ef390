// A client of an MCP server over Streamable HTTP: passes its messages to the
// server's process, and the responses back on the right stream.

import {
  WebStandardStreamableHTTPServerTransport as HttpTransport,
} from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import {
  CancelledNotificationSchema,
  isJSONRPCErrorResponse,
  isJSONRPCRequest,
  isJSONRPCResultResponse,
  type JSONRPCMessage,
  LATEST_PROTOCOL_VERSION,
  type RequestId,
} from "@modelcontextprotocol/sdk/types.js";
import { type Child, refusal, type Sink } from "./child.ts";
import { type Inlet, Refused } from "./inlet.ts";
import { Outlet, type Unread } from "./outlet.ts";
import type { Holder } from "./slots.ts";
import { refused } from "./refused.ts";

/** Keep-alive messages also detect that the reader of a stream has left. */
const keepAliveMs = 5000;

/** Maximum number of open requests of one client. */
const maxOpenRequests = 256;

export interface SessionOptions {
  id: string;
  /** The worker that the client belongs to. */
  worker: string;
  child: Child;
  /** Whether the process belongs to this session, and ends with it. */
  ownsChild: boolean;
  inlet: Inlet;
  unread: Unread;
  /** Called when a request was answered. */
  answered: (milliseconds: number, error: string | undefined) => void;
  /** Called when the client was disconnected. */
  failed: (reason: string) => void;
  /** Called when the session can no longer be used. */
  left: () => void;
  /** Called when its process has ended, too. */
  closed: () => void;
}

export class Session implements Sink, Holder {
  readonly id: string;
  readonly worker: string;
  readonly #options: SessionOptions;
  readonly #transport: HttpTransport;
  /** Start times of the open requests. */
  readonly #open = new Map<RequestId, number>();
  /** Messages that are being written to the process. */
  readonly #sends = new Set<Promise<void>>();
  readonly #outlet: Outlet;
  #usedAt = Date.now();
  #priming = false;
  #closed = false;

  constructor(options: SessionOptions) {
    const { child, ownsChild } = options;
    this.id = options.id;
    this.worker = options.worker;
    this.#options = options;
    this.#outlet = new Outlet(options.unread, {
      worker: options.worker,
      overflowed: () => this.#cutOff(),
      // A shared process is never paused, as other clients need it.
      full: (isFull) => ownsChild && child.pause(isFull),
    });
    this.#transport = new HttpTransport({
      sessionIdGenerator: () => options.id,
      keepAliveMs,
    });
    this.#transport.onmessage = (message) => this.#receive(message);
    this.#transport.onclose = () => void this.close();
    options.child.attach(this);
  }

  async start(): Promise<void> {
    await this.#transport.start();
  }

  /** Recreates a session that a client has from an earlier gateway. */
  async resume(): Promise<void> {
    this.#priming = true;
    const response = await this.#transport.handleRequest(
      new Request("http://gateway/mcp", {
        method: "POST",
        headers: {
          accept: "application/json, text/event-stream",
          "content-type": "application/json",
        },
        body: JSON.stringify({
          jsonrpc: "2.0",
          id: "resume",
          method: "initialize",
          params: {
            protocolVersion: LATEST_PROTOCOL_VERSION,
            capabilities: {},
            clientInfo: { name: "hal9000-gateway", version: "1" },
          },
        }),
      }),
    );
    await response.text();
    this.#priming = false;
  }

  async handle(request: Request): Promise<Response> {
    this.#usedAt = Date.now();
    const response = request.method === "POST"
      ? await this.#post(request)
      : await this.#transport.handleRequest(request);
    if (!response.body) return response;
    const left = () => this.#usedAt = Date.now();
    const body = this.#outlet.through(response.body, left);
    const { status, headers } = response;
    // This header is between the client and the gateway's own HTTP server.
    headers.delete("connection");
    return new Response(body, { status, headers });
  }

  async #post(request: Request): Promise<Response> {
    try {
      const { json, release } = await this.#options.inlet.read(
        request,
        this.worker,
      );
      try {
        if (Array.isArray(json)) throw new Refused(400, "MCP has no batches");
        return await this.#transport.handleRequest(request, {
          parsedBody: json,
        });
      } finally {
        void Promise.allSettled(this.#sends).then(release);
      }
    } catch (error) {
      if (error instanceof Refused) return refused(error.status, error.message);
      throw error;
    }
  }

  /** Whether the client has been idle for `idleMs`. */
  isIdle(idleMs: number): boolean {
    // A request without an open response body no longer has a client.
    return !this.#closed && !this.#outlet.isOpen &&
      Date.now() - this.#usedAt > idleMs;
  }

  deliver(message: JSONRPCMessage, related?: RequestId): void {
    if (this.#closed) return;
    const isError = isJSONRPCErrorResponse(message);
    if (isError || isJSONRPCResultResponse(message)) {
      const since = this.#open.get(message.id as RequestId);
      this.#open.delete(message.id as RequestId);
      if (since !== undefined) {
        const error = isError ? message.error.message : undefined;
        this.#options.answered(performance.now() - since, error);
      }
    }
    const options = related === undefined ? {} : { relatedRequestId: related };
    // Ignore streams that the client has closed.
    this.#transport.send(message, options).catch(() => {});
  }

  #cutOff(): void {
    const reason = "A client did not read its responses";
    this.#options.failed(reason);
    // The HTTP library does not report this code as an error.
    const code = "ERR_STREAM_PREMATURE_CLOSE";
    this.#outlet.end(Object.assign(new Error(reason), { code }));
    void this.close();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.left();
    this.#options.child.detach(this);
    await this.#transport.close();
    if (this.#options.ownsChild) await this.#options.child.close();
    this.#options.closed();
  }

  #receive(message: JSONRPCMessage): void {
    if (this.#priming && isJSONRPCRequest(message)) {
      const { id } = message;
      this.#transport.send({ jsonrpc: "2.0", id, result: {} }).catch(() => {});
      return;
    }
    if (isJSONRPCRequest(message)) {
      if (this.#open.size >= maxOpenRequests) {
        const why =
          `A client can have at most ${maxOpenRequests} open requests`;
        return this.deliver(refusal(message.id, why), message.id);
      }
      this.#open.set(message.id, performance.now());
    } else this.#forgetCancelled(message);
    const sent = this.#options.child.send(this, message)
      .finally(() => this.#sends.delete(sent));
    this.#sends.add(sent);
  }

  /** Closes the stream of a cancelled request, as no response will. */
  #forgetCancelled(message: JSONRPCMessage): void {
    const cancelled = CancelledNotificationSchema.safeParse(message).data;
    const id = cancelled?.params.requestId;
    if (id === undefined) return;
    this.#open.delete(id);
    this.#transport.closeSSEStream(id);
  }
}
