// An MCP server's process, for one client or for several: it is started when it is
// first needed, and again when it has ended. What it is sent has ids of our own, so
// that clients who share it cannot take each other's answers.

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
import { introduce, type Params } from "./introduction.ts";
import { serverError } from "./refused.ts";
import type { Tools } from "./shipped.ts";
import { StdioTransport } from "./stdio.ts";
import type { Watch, Watched } from "./watch.ts";

/** What a client of the process hears. */
export interface Sink {
  /** `related` is the client's own request that it has to do with, if any. */
  deliver(message: JSONRPCMessage, related?: RequestId): void;
}

export interface ChildOptions {
  /** Of the instance. */
  home: string;
  command: string;
  args: string[];
  env: Record<string, string>;
  /** What its tools accept, where that is known. */
  tools: Tools | undefined;
  /** Watches what it uses. */
  watch: Watch;
  allowance: Pick<Watched, "allowance" | "maxMemoryBytes" | "maxProcesses">;
  /** Takes what it writes to its stderr, and what is wrong with it. */
  log: (text: Uint8Array | string) => void;
  /** Hears of each start, with what went wrong. */
  started: (error: string | undefined) => void;
  /** Hears of each end that nobody asked for. */
  ended: (reason: string) => void;
}

interface Pending {
  sink: Sink;
  /** As the client calls it. */
  id: RequestId;
  progressToken: string | number | undefined;
}

export class Child {
  readonly #options: ChildOptions;
  #transport: StdioTransport | undefined;
  #starting: Promise<void> | undefined;
  /** Of a process that could not be started. */
  #ending: Promise<void> | undefined;
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
      this.#refuse(id, "The client has left");
    }
  }

  /** Has the process wait with what it says, or go on. */
  pause(isPaused: boolean): void {
    this.#transport?.pause(isPaused);
  }

  /** Passes on what a client says; never throws. */
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

  /** A process that has been introduced to; throws where there can be none. */
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
        const result = this.#welcome ?? {};
        sink.deliver({ jsonrpc: "2.0", id: message.id, result }, message.id);
        return;
      }
      await this.ensure();
      await this.#request(sink, message);
    } else if (isJSONRPCNotification(message)) {
      // Ours was sent when the process was started.
      if (message.method === "notifications/initialized") return;
      await this.ensure();
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

  /** A cancellation names a request by the client's id, and ends it for us. */
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
      this.#welcome = await introduce(transport, this.#params, {
        started: (pid) => {
          unwatch = this.#watched(transport, pid);
        },
        heard: (message) => this.#hear(message),
        ended: () => {
          unwatch();
          this.#lose(transport);
        },
      });
      if (this.#closed) throw new Error("The MCP server is being closed");
    } catch (error) {
      this.#transport = undefined;
      // The next may come with others, which it can bear.
      this.#params = undefined;
      this.#ending = transport.close();
      throw error;
    }
  }

  #watched(transport: StdioTransport, pid: number): () => void {
    const { watch, allowance } = this.#options;
    const end = (reason: string) => transport.kill(`it ${reason}`);
    return watch.add({ pid, ...allowance, end });
  }

  /** All that is open fails; the next request starts another one. */
  #lose(transport: StdioTransport): void {
    if (this.#transport !== transport) return;
    this.#transport = undefined;
    if (this.#closed || this.#starting) return;
    const reason = `The MCP server has ended unexpectedly: ${transport.end}`;
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
    const [sink, another] = this.#busy.size > 0 ? this.#busy : this.#sinks;
    if (!sink || another) {
      // Not to any of them: what one is asked may be of another's project.
      const why = sink ? "Nobody can tell which client is meant" : "No client";
      return this.#refuse(message.id, why);
    }
    this.#asked.set(message.id, sink);
    sink.deliver(message, this.#latestOf(sink));
  }

  #tell(message: JSONRPCNotification): void {
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
    for (const sink of this.#hearers(message)) {
      sink.deliver(message, this.#latestOf(sink));
    }
  }

  #hearers({ method, params }: JSONRPCNotification): Iterable<Sink> {
    if (method === "notifications/cancelled") {
      const asked = this.#asked.get(params?.["requestId"] as RequestId);
      return asked ? [asked] : [];
    }
    // What it does for one is not to be logged by others.
    const forOne = method === "notifications/message" && this.#busy.size > 0;
    return forOne ? this.#busy : this.#sinks;
  }

  /** The clients that wait for an answer. */
  get #busy(): Set<Sink> {
    return new Set([...this.#pending.values()].map(({ sink }) => sink));
  }

  /** The client's own request that what it hears has to do with. */
  #latestOf(sink: Sink): RequestId | undefined {
    return [...this.#pending.values()]
      .findLast((pending) => pending.sink === sink)?.id;
  }

  /** Of what the process asks; where it has ended nobody waits for that. */
  #refuse(id: RequestId, why: string): void {
    this.#write(refusal(id, why)).catch(() => {});
  }

  /** Waits where the process reads slower than it is written to. */
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
