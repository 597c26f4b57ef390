// A client of an MCP server, as Streamable HTTP has it: what it posts goes to the
// server's process, and what that says goes back on the stream that it belongs to.

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
import type { Holder } from "./places.ts";
import { refused } from "./refused.ts";

/** By what is written to it a stream is found to have lost its reader. */
const keepAliveMs = 5000;

/** Requests of one client that wait for an answer. */
const maxOpenRequests = 256;

export interface SessionOptions {
  id: string;
  /** Whose client it is. */
  worker: string;
  child: Child;
  /** Whether that is the session's own, and ends with it. */
  ownsChild: boolean;
  inlet: Inlet;
  unread: Unread;
  /** Hears of each request that was answered. */
  answered: (milliseconds: number, error: string | undefined) => void;
  /** Hears of a client that was cut off. */
  failed: (reason: string) => void;
  /** Hears when it is not to be found any more. */
  left: () => void;
  /** Hears when its process has ended, too. */
  closed: () => void;
}

export class Session implements Sink, Holder {
  readonly id: string;
  readonly worker: string;
  readonly #options: SessionOptions;
  readonly #transport: HttpTransport;
  /** When each request that is open came. */
  readonly #open = new Map<RequestId, number>();
  /** What is being written to the process. */
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
      // One that is shared would be held up for others.
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

  /** Takes up a client that knows its session from a gateway before this one. */
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
    // That is between the client and the gateway's own HTTP.
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

  /** Whether nobody has been there for so long. */
  isIdle(idleMs: number): boolean {
    // Without a body to be answered in, a request that is open is nobody's.
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
    // A stream that its client has closed is no concern of the others.
    this.#transport.send(message, options).catch(() => {});
  }

  #cutOff(): void {
    const reason = "A client has not read what it asked for";
    this.#options.failed(reason);
    // By its code the HTTP library knows that this is no fault.
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
        const why = `A client has ${maxOpenRequests} open requests at most`;
        return this.deliver(refusal(message.id, why), message.id);
      }
      this.#open.set(message.id, performance.now());
    } else this.#forgetCancelled(message);
    const sent = this.#options.child.send(this, message)
      .finally(() => this.#sends.delete(sent));
    this.#sends.add(sent);
  }

  /** No answer will come, which would have closed the request's stream. */
  #forgetCancelled(message: JSONRPCMessage): void {
    const cancelled = CancelledNotificationSchema.safeParse(message).data;
    const id = cancelled?.params.requestId;
    if (id === undefined) return;
    this.#open.delete(id);
    this.#transport.closeSSEStream(id);
  }
}
