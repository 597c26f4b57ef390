// Runs an MCP server's process for one client or several. The process starts on
// first use, and again after it has ended. Request ids are rewritten, so that
// clients of a shared process cannot receive each other's responses.

import {
  isInitializeRequest,
  isJSONRPCNotification,
  isJSONRPCRequest,
  type JSONRPCMessage,
  type JSONRPCNotification,
  type JSONRPCRequest,
  type RequestId,
} from "@modelcontextprotocol/sdk/types.js";
import { messageOf } from "../std/errors.ts";
import { guarded, Rejected } from "./guard.ts";
import { initialize, type Params } from "./initialize.ts";
import { serverError } from "./refused.ts";
import type { Tools } from "./shipped.ts";
import { StdioTransport } from "./stdio.ts";
import type { Watch, Watched } from "./watch.ts";

/** A client that receives the process's messages. */
export interface Sink {
  /** `related` is the id of the client's own request that the message belongs to. */
  deliver(message: JSONRPCMessage, related?: RequestId): void;
}

export interface ChildOptions {
  /** Home directory of the instance. */
  home: string;
  command: string;
  args: string[];
  env: Record<string, string>;
  /** Arguments that its tools accept, if known. */
  tools: Tools | undefined;
  /** Monitors its resource usage. */
  watch: Watch;
  limits: Pick<Watched, "limitGroup" | "maxMemoryBytes" | "maxProcesses">;
  /** Receives its stderr output and its errors. */
  log: (text: Uint8Array | string) => void;
  /** Called after each start, with the error if it failed. */
  started: (error: string | undefined) => void;
  /** Called when the process ends unexpectedly. */
  ended: (reason: string) => void;
}

interface Pending {
  sink: Sink;
  /** The client's own id of the request. */
  id: RequestId;
  progressToken: string | number | undefined;
}

export class Child {
  readonly #options: ChildOptions;
  #transport: StdioTransport | undefined;
  #starting: Promise<void> | undefined;
  /** Shutdown of a process that failed to start. */
  #ending: Promise<void> | undefined;
  /** `initialize` parameters of the first client. */
  #params: Params | undefined;
  /** The process's response to them. */
  #initializeResult: Record<string, unknown> | undefined;
  #next = 1;
  readonly #pending = new Map<RequestId, Pending>();
  /** Requests from the process, by id, with the client that they were sent to. */
  readonly #serverRequests = new Map<RequestId, Sink>();
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
    for (const [id, asked] of this.#serverRequests) {
      if (asked !== sink) continue;
      this.#serverRequests.delete(id);
      this.#refuse(id, "The client has left");
    }
  }

  /** Pauses or resumes reading the process's output. */
  pause(isPaused: boolean): void {
    this.#transport?.pause(isPaused);
  }

  /** Sends a client's message to the process; never throws. */
  async send(sink: Sink, message: JSONRPCMessage): Promise<void> {
    const { tools } = this.#options;
    try {
      const passed = tools ? guarded(tools, message) : message;
      if (passed) await this.#send(sink, passed);
    } catch (error) {
      if (!isJSONRPCRequest(message)) return;
      const code = error instanceof Rejected ? error.code : serverError;
      const answer = refusal(message.id, messageOf(error), code);
      sink.deliver(answer, message.id);
    }
  }

  /** Ensures that an initialized process runs; throws if it cannot be started. */
  async ensure(): Promise<void> {
    if (this.#closed) throw new Error("The MCP server is being closed");
    if (this.#transport && !this.#starting) return;
    this.#starting ??= this.#start().then(
      () => this.#options.started(undefined),
      (error) => {
        this.#options.started(messageOf(error));
        throw error;
      },
    ).finally(() => {
      this.#starting = undefined;
    });
    await this.#starting;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([this.#transport?.close(), this.#ending]);
  }

  async #send(sink: Sink, message: JSONRPCMessage): Promise<void> {
    if (isJSONRPCRequest(message)) {
      if (isInitializeRequest(message)) {
        this.#params ??= message.params as Params;
        await this.ensure();
        const result = this.#initializeResult ?? {};
        sink.deliver({ jsonrpc: "2.0", id: message.id, result }, message.id);
        return;
      }
      await this.ensure();
      await this.#request(sink, message);
    } else if (isJSONRPCNotification(message)) {
      // The gateway sent its own when it started the process.
      if (message.method === "notifications/initialized") return;
      await this.ensure();
      await this.#write(this.#translated(sink, message));
    } else if (
      "id" in message &&
      this.#serverRequests.get(message.id as RequestId) === sink
    ) {
      this.#serverRequests.delete(message.id as RequestId);
      await this.#write(message);
    }
  }

  async #request(sink: Sink, message: JSONRPCRequest): Promise<void> {
    const id = this.#next++;
    const meta = message.params?._meta;
    const progressToken = meta?.progressToken;
    this.#pending.set(id, { sink, id: message.id, progressToken });
    try {
      await this.#write({
        ...message,
        id,
        ...(progressToken === undefined ? {} : {
          params: { ...message.params, _meta: { ...meta, progressToken: id } },
        }),
      });
    } catch (error) {
      this.#pending.delete(id);
      throw error;
    }
  }

  /** Maps the request id in a cancellation from the client's to the gateway's. */
  #translated(sink: Sink, message: JSONRPCNotification): JSONRPCMessage {
    if (message.method !== "notifications/cancelled") return message;
    const cancelled = message.params?.["requestId"];
    for (const [requestId, pending] of this.#pending) {
      if (pending.sink !== sink || pending.id !== cancelled) continue;
      this.#pending.delete(requestId);
      return { ...message, params: { ...message.params, requestId } };
    }
    return message;
  }

  async #start(): Promise<void> {
    const { home, command, args, env, log } = this.#options;
    const transport = new StdioTransport({
      home,
      command,
      args,
      env,
      stderr: log,
    });
    transport.onerror = ({ message }) => log(`${message}\n`);
    this.#transport = transport;
    let unwatch = () => {};
    try {
      this.#initializeResult = await initialize(transport, this.#params, {
        started: (pid) => {
          unwatch = this.#watched(transport, pid);
        },
        received: (message) => this.#receive(message),
        ended: () => {
          unwatch();
          this.#handleExit(transport);
        },
      });
      if (this.#closed) throw new Error("The MCP server is being closed");
    } catch (error) {
      this.#transport = undefined;
      // The next client may send parameters that the process accepts.
      this.#params = undefined;
      this.#ending = transport.close();
      throw error;
    }
  }

  #watched(transport: StdioTransport, pid: number): () => void {
    const { watch, limits } = this.#options;
    const end = (reason: string) => transport.kill(`it ${reason}`);
    return watch.add({ pid, ...limits, end });
  }

  /** Fails all open requests; the next request starts a new process. */
  #handleExit(transport: StdioTransport): void {
    if (this.#transport !== transport) return;
    this.#transport = undefined;
    if (this.#closed || this.#starting) return;
    const reason = `The MCP server has ended unexpectedly: ${transport.end}`;
    for (const { sink, id } of this.#pending.values()) {
      sink.deliver(refusal(id, reason), id);
    }
    this.#pending.clear();
    this.#serverRequests.clear();
    this.#options.ended(reason);
  }

  #receive(message: JSONRPCMessage): void {
    if (isJSONRPCRequest(message)) return this.#forwardRequest(message);
    if ("method" in message) return this.#forwardNotification(message);
    const pending = this.#pending.get(message.id as RequestId);
    if (!pending) return;
    this.#pending.delete(message.id as RequestId);
    pending.sink.deliver({ ...message, id: pending.id }, pending.id);
  }

  /** Sends a request from the process to the one client that it can be for. */
  #forwardRequest(message: JSONRPCRequest): void {
    const [sink, another] = this.#busy.size > 0 ? this.#busy : this.#sinks;
    if (!sink || another) {
      // Never guess: the request may contain data of another client's project.
      const why = sink ? "Cannot tell which client is meant" : "No client";
      return this.#refuse(message.id, why);
    }
    this.#serverRequests.set(message.id, sink);
    sink.deliver(message, this.#latestRequestOf(sink));
  }

  #forwardNotification(message: JSONRPCNotification): void {
    const { method, params } = message;
    if (method === "notifications/progress") {
      const pending = this.#pending.get(params?.["progressToken"] as RequestId);
      if (pending?.progressToken === undefined) return;
      const { sink, id, progressToken } = pending;
      return sink.deliver(
        { ...message, params: { ...params, progressToken } },
        id,
      );
    }
    for (const sink of this.#recipientsOf(message)) {
      sink.deliver(message, this.#latestRequestOf(sink));
    }
  }

  #recipientsOf({ method, params }: JSONRPCNotification): Iterable<Sink> {
    if (method === "notifications/cancelled") {
      const asked = this.#serverRequests.get(
        params?.["requestId"] as RequestId,
      );
      return asked ? [asked] : [];
    }
    // Log messages may contain data of the client that is being served.
    const forOne = method === "notifications/message" && this.#busy.size > 0;
    return forOne ? this.#busy : this.#sinks;
  }

  /** Clients with open requests. */
  get #busy(): Set<Sink> {
    return new Set([...this.#pending.values()].map(({ sink }) => sink));
  }

  /** The latest open request of a client. */
  #latestRequestOf(sink: Sink): RequestId | undefined {
    return [...this.#pending.values()]
      .findLast((pending) => pending.sink === sink)?.id;
  }

  /** Rejects a request from the process; ignored if the process has ended. */
  #refuse(id: RequestId, why: string): void {
    this.#write(refusal(id, why)).catch(() => {});
  }

  /** Waits while the process's input buffer is full. */
  async #write(message: JSONRPCMessage): Promise<void> {
    this.#options.watch.called();
    if (!this.#transport) throw new Error("The MCP server has ended");
    await this.#transport.send(message);
  }
}

export function refusal(
  id: RequestId,
  message: string,
  code = serverError,
): JSONRPCMessage {
  return { jsonrpc: "2.0", id, error: { code, message } };
}
