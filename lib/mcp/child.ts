// An MCP server's process, for one client or for several: it is started when it is
// first needed, and again when it has ended. What it is sent has ids of our own, so
// that clients who share it cannot take each other's answers.

import { closeSync, writeSync } from "node:fs";
import {
  StdioClientTransport,
} from "@modelcontextprotocol/sdk/client/stdio.js";
import {
  isInitializeRequest,
  isJSONRPCErrorResponse,
  isJSONRPCNotification,
  isJSONRPCRequest,
  isJSONRPCResultResponse,
  type JSONRPCMessage,
  type JSONRPCRequest,
  LATEST_PROTOCOL_VERSION,
  type RequestId,
} from "@modelcontextprotocol/sdk/types.js";
import { messageOf } from "../errors.ts";

/** What a client of the process hears. */
export interface Sink {
  /** `related` is the client's own request that it has to do with, if any. */
  deliver(message: JSONRPCMessage, related?: RequestId): void;
}

export interface ChildOptions {
  name: string;
  command: string;
  args: string[];
  env: Record<string, string>;
  /** Opens what its stderr goes to. */
  openLog: () => number;
  /** Hears of each end that nobody asked for. */
  ended: (reason: string) => void;
}

interface Pending {
  sink: Sink;
  /** As the client calls it. */
  id: RequestId;
  progressToken: string | number | undefined;
}

type Params = JSONRPCRequest["params"];

/** For a client that was here before this gateway was. */
const ownParams: Params = {
  protocolVersion: LATEST_PROTOCOL_VERSION,
  capabilities: {},
  clientInfo: { name: "hal9000-gateway", version: "1" },
};

/** A process that has not introduced itself by then speaks something else. */
const greetingMs = 30_000;

/** As JSON-RPC has them for servers, -32000 to -32099. */
const endedCode = -32000;

export class Child {
  readonly #options: ChildOptions;
  #transport: StdioClientTransport | undefined;
  #starting: Promise<void> | undefined;
  /** What the first client introduced itself with. */
  #params: Params | undefined;
  /** What the process answered to that. */
  #welcome: Record<string, unknown> | undefined;
  #next = 1;
  readonly #pending = new Map<RequestId, Pending>();
  /** Requests of the process, with whom they were put to. */
  readonly #asked = new Map<RequestId, Sink>();
  readonly #sinks = new Set<Sink>();
  #closed = false;

  constructor(options: ChildOptions) {
    this.#options = options;
  }

  get running(): boolean {
    return this.#transport !== undefined;
  }

  attach(sink: Sink): void {
    this.#sinks.add(sink);
  }

  detach(sink: Sink): void {
    this.#sinks.delete(sink);
    for (const [id, pending] of this.#pending) {
      if (pending.sink === sink) this.#pending.delete(id);
    }
    for (const [id, asked] of this.#asked) {
      if (asked !== sink) continue;
      this.#asked.delete(id);
      void this.#write(refusal(id, "The client has left"));
    }
  }

  /** Passes on what a client says; never throws. */
  async send(sink: Sink, message: JSONRPCMessage): Promise<void> {
    try {
      await this.#send(sink, message);
    } catch (error) {
      if (!isJSONRPCRequest(message)) return;
      sink.deliver(refusal(message.id, messageOf(error)), message.id);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#transport?.close();
  }

  async #send(sink: Sink, message: JSONRPCMessage): Promise<void> {
    if (isJSONRPCRequest(message)) {
      if (isInitializeRequest(message)) {
        this.#params ??= message.params as Params;
        await this.#ensure();
        const result = this.#welcome ?? {};
        sink.deliver({ jsonrpc: "2.0", id: message.id, result }, message.id);
        return;
      }
      await this.#ensure();
      await this.#request(sink, message);
    } else if (isJSONRPCNotification(message)) {
      // Ours was sent when the process was started.
      if (message.method === "notifications/initialized") return;
      await this.#ensure();
      await this.#write(this.#translated(sink, message));
    } else if (
      "id" in message && this.#asked.get(message.id as RequestId) === sink
    ) {
      this.#asked.delete(message.id as RequestId);
      await this.#write(message);
    }
  }

  async #request(sink: Sink, message: JSONRPCRequest): Promise<void> {
    const id = this.#next++;
    const meta = message.params?._meta;
    const progressToken = meta?.progressToken;
    this.#pending.set(id, { sink, id: message.id, progressToken });
    await this.#write({
      ...message,
      id,
      ...(progressToken === undefined ? {} : {
        params: { ...message.params, _meta: { ...meta, progressToken: id } },
      }),
    });
  }

  /** A cancellation names a request by the client's id. */
  #translated(sink: Sink, message: JSONRPCMessage): JSONRPCMessage {
    if (!("method" in message)) return message;
    if (message.method !== "notifications/cancelled") return message;
    const cancelled = message.params?.["requestId"];
    for (const [requestId, pending] of this.#pending) {
      if (pending.sink !== sink || pending.id !== cancelled) continue;
      return { ...message, params: { ...message.params, requestId } };
    }
    return message;
  }

  /** A process that has been introduced to, in any case. */
  async #ensure(): Promise<void> {
    if (this.#closed) throw new Error(`${this.#options.name} is closed`);
    if (this.#transport && !this.#starting) return;
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    await this.#starting;
  }

  async #start(): Promise<void> {
    const { name, command, args, env, openLog } = this.#options;
    const transport = new StdioClientTransport({
      command,
      args,
      env,
      stderr: "pipe",
    });
    const log = openLog();
    transport.stderr?.on("data", (chunk: Uint8Array) => writeSync(log, chunk));
    const welcome = new Promise<Record<string, unknown>>((resolve, reject) => {
      transport.onmessage = (message) => {
        if (isJSONRPCResultResponse(message) && message.id === 0) {
          return resolve(message.result);
        }
        if (isJSONRPCErrorResponse(message) && message.id === 0) {
          return reject(new Error(message.error.message));
        }
        this.#hear(message);
      };
      transport.onclose = () => {
        closeSync(log);
        reject(new Error(`${name} has ended`));
        this.#lose(transport);
      };
    });
    welcome.catch(() => {}); // where the start itself throws
    try {
      await transport.start();
    } catch (error) {
      throw new Error(`Cannot start ${name}: ${messageOf(error)}`);
    }
    this.#transport = transport;
    await transport.send({
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: this.#params ?? ownParams,
    });
    const late = setTimeout(() => void transport.close(), greetingMs);
    try {
      this.#welcome = await welcome;
    } finally {
      clearTimeout(late);
    }
    await transport.send({
      jsonrpc: "2.0",
      method: "notifications/initialized",
    });
  }

  /** All that is open fails; the next request starts another one. */
  #lose(transport: StdioClientTransport): void {
    if (this.#transport !== transport) return;
    this.#transport = undefined;
    if (this.#closed) return;
    const reason = `${this.#options.name} has ended unexpectedly`;
    for (const { sink, id } of this.#pending.values()) {
      sink.deliver(refusal(id, reason), id);
    }
    this.#pending.clear();
    this.#asked.clear();
    this.#options.ended(reason);
  }

  #hear(message: JSONRPCMessage): void {
    if (isJSONRPCRequest(message)) return this.#ask(message);
    if ("method" in message) return this.#tell(message);
    const pending = this.#pending.get(message.id as RequestId);
    if (!pending) return;
    this.#pending.delete(message.id as RequestId);
    pending.sink.deliver({ ...message, id: pending.id }, pending.id);
  }

  /** A request of the process's goes to the client that it works for. */
  #ask(message: JSONRPCRequest): void {
    const latest = [...this.#pending.values()].at(-1);
    const sink = latest?.sink ??
      (this.#sinks.size === 1 ? [...this.#sinks][0] : undefined);
    if (!sink) {
      return void this.#write(refusal(message.id, "No client is there to ask"));
    }
    this.#asked.set(message.id, sink);
    sink.deliver(message, latest?.id);
  }

  #tell(message: JSONRPCMessage & { method: string; params?: Params }): void {
    const token = message.params?.["progressToken"] as RequestId | undefined;
    if (message.method === "notifications/progress" && token !== undefined) {
      const pending = this.#pending.get(token);
      if (!pending) return;
      const params = {
        ...message.params,
        progressToken: pending.progressToken,
      };
      pending.sink.deliver(
        { ...message, params } as JSONRPCMessage,
        pending.id,
      );
      return;
    }
    for (const sink of this.#sinks) {
      const own = [...this.#pending.values()]
        .findLast((pending) => pending.sink === sink);
      sink.deliver(message, own?.id);
    }
  }

  /** Waits where the process reads slower than it is written to. */
  async #write(message: JSONRPCMessage): Promise<void> {
    if (!this.#transport) throw new Error(`${this.#options.name} has ended`);
    await this.#transport.send(message);
  }
}

export function refusal(id: RequestId, message: string): JSONRPCMessage {
  return { jsonrpc: "2.0", id, error: { code: endedCode, message } };
}
