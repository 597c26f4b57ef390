// A client of an MCP server, as Streamable HTTP has it: what it posts goes to the
// server's process, and what that says goes back on the stream that it belongs to.

import {
  WebStandardStreamableHTTPServerTransport as HttpTransport,
} from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import {
  isJSONRPCErrorResponse,
  isJSONRPCRequest,
  isJSONRPCResultResponse,
  type JSONRPCMessage,
  LATEST_PROTOCOL_VERSION,
  type RequestId,
} from "@modelcontextprotocol/sdk/types.js";
import type { Child, Sink } from "./child.ts";

/** A request is no larger: files that are written by a tool are. */
const mostBodyBytes = 32 * 1024 * 1024;

/** What a client that does not read may make us keep. */
const mostUnreadBytes = 64 * 1024 * 1024;

/** By what is written to it a stream is found to have lost its reader. */
const keepAliveMs = 5000;

export interface SessionOptions {
  id: string;
  child: Child;
  /** Whether that is the session's own, and ends with it. */
  ownsChild: boolean;
  /** Hears of each request that was answered. */
  answered: (milliseconds: number, error: string | undefined) => void;
  closed: () => void;
}

export class Session implements Sink {
  readonly id: string;
  readonly #options: SessionOptions;
  readonly #transport: HttpTransport;
  /** When each request that is open came. */
  readonly #open = new Map<RequestId, number>();
  #streams = 0;
  #sentBytes = 0;
  #readBytes = 0;
  #usedAt = Date.now();
  #priming = false;
  #closed = false;

  constructor(options: SessionOptions) {
    this.id = options.id;
    this.#options = options;
    this.#transport = new HttpTransport({
      sessionIdGenerator: () => options.id,
      maxRequestBodySize: mostBodyBytes,
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
    const response = await this.#transport.handleRequest(request);
    if (!response.body) return response;
    this.#streams++;
    let open = true;
    const left = () => {
      // A stream that has ended may be cancelled besides.
      if (!open) return;
      open = false;
      this.#streams--;
      this.#usedAt = Date.now();
      // What was left unread is nobody's any more.
      if (this.#streams === 0) this.#sentBytes = this.#readBytes = 0;
    };
    return new Response(this.#counted(response.body, left), response);
  }

  /** Whether nobody has been there for so long. */
  isIdle(idleMs: number): boolean {
    return this.#streams === 0 && this.#open.size === 0 &&
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
    this.#sentBytes += JSON.stringify(message).length;
    if (this.#sentBytes - this.#readBytes > mostUnreadBytes) {
      return void this.close(); // it does not read
    }
    const options = related === undefined ? {} : { relatedRequestId: related };
    // A stream that its client has closed is no concern of the others.
    this.#transport.send(message, options).catch(() => {});
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#options.child.detach(this);
    await this.#transport.close();
    if (this.#options.ownsChild) await this.#options.child.close();
    this.#options.closed();
  }

  #receive(message: JSONRPCMessage): void {
    if (this.#priming && isJSONRPCRequest(message)) {
      const { id } = message;
      void this.#transport.send({ jsonrpc: "2.0", id, result: {} });
      return;
    }
    if (isJSONRPCRequest(message)) {
      this.#open.set(message.id, performance.now());
    }
    void this.#options.child.send(this, message);
  }

  /** The body, as it is read; `left` hears of its end, whoever ends it. */
  #counted(
    body: ReadableStream<Uint8Array>,
    left: () => void,
  ): ReadableStream<Uint8Array> {
    const reader = body.getReader();
    return new ReadableStream({
      pull: async (controller) => {
        const { done, value } = await reader.read();
        if (done) {
          left();
          return controller.close();
        }
        this.#readBytes += value.length;
        controller.enqueue(value);
      },
      cancel: async (reason) => {
        left();
        await reader.cancel(reason);
      },
    });
  }
}
