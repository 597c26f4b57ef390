// Serves one MCP server to workers: Streamable HTTP on its own unix socket.

import { randomUUID } from "node:crypto";
import {
  createServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { Latencies } from "../std/latencies.ts";
import { isLocalUrl } from "../std/local-url.ts";
import type { Owner } from "../std/owned.ts";
import { Child } from "./child.ts";
import type { ServedStatus } from "../mcp/client.ts";
import type { ServerConfig } from "../mcp/config.ts";
import { Connections } from "./connections.ts";
import { tokenHeader, workerOf } from "../mcp/identity.ts";
import { Inlet } from "./inlet.ts";
import type { Unread } from "./outlet.ts";
import { type Place, takePath } from "./place.ts";
import { slotFor } from "./slots.ts";
import { refused, tooManyClients } from "./refused.ts";
import type { ServerLog } from "./server-log.ts";
import { Session } from "./session.ts";
import { shippedTools, type Tools } from "./shipped.ts";
import { parseSize } from "../std/units.ts";
import { Upstream } from "./upstream.ts";
import type { Watch } from "./watch.ts";

/** Limits on clients: with a process per client, and with a shared process. */
const slotLimits = {
  session: { max: 64, maxOfWorker: 8 },
  shared: { max: 256, maxOfWorker: 32 },
};

/**
 * A client without an open stream loses its slot, if needed, to another client of the same
 * worker after `ownIdleMs`, and to one of any worker after `idleMs`.
 */
const idle = { ownIdleMs: 2000, idleMs: 10_000 };

/** Maximum length of the last error that is reported. */
const maxErrorLength = 300;

/** Interval of the checks for idle clients. */
const reapMs = 1000;

export interface ServedOptions {
  /** Home directory of the instance. */
  home: string;
  name: string;
  config: ServerConfig;
  /** Path of the server's program; undefined for a URL, or if it was not found. */
  command: string | undefined;
  /** Why the server is not available; undefined if it is. */
  missing: string | undefined;
  socket: string;
  owner: Owner;
  log: ServerLog;
  /** Key that the workers' tokens are derived from. */
  tokenKey: string;
  /** Unread data of the clients of all servers. */
  unread: Unread;
  /** Monitor of the processes of all servers. */
  watch: Watch;
}

export class ServedMcp {
  readonly #options: ServedOptions;
  readonly #sessions = new Map<string, Session>();
  /** All sessions, including closed ones whose process is still running. */
  readonly #clients = new Set<Session>();
  readonly #children = new Set<Child>();
  readonly #latencies = new Latencies();
  readonly #inlet = new Inlet();
  readonly #upstream: Upstream | undefined;
  readonly #connections = new Connections();
  readonly #tools: Tools | undefined;
  #shared: Child | undefined;
  #http: HttpServer | undefined;
  #place: Place | undefined;
  #reaper: ReturnType<typeof setInterval> | undefined;
  #calls = 0;
  #errors = 0;
  #lastError: string | null = null;
  #state: ServedStatus["state"];

  constructor(options: ServedOptions) {
    const { config, command } = options;
    const { url, headers } = config;
    this.#options = options;
    this.#tools = command === undefined
      ? undefined
      : shippedTools(config, command);
    this.#upstream = url === undefined ? undefined : new Upstream({
      url,
      anyPath: config.api ?? false,
      headers,
      answered: (milliseconds) => this.#answered(milliseconds, undefined),
      started: (error) => this.#started(error),
    });
    this.#state = options.missing === undefined ? "starting" : "missing";
    this.#lastError = options.missing ?? null;
    if (options.missing !== undefined) this.#log(options.missing);
  }

  async listen(): Promise<void> {
    const { socket, config, owner } = this.#options;
    const answer = getRequestListener(
      (request) => this.#handle(request),
      { overrideGlobalObjects: false },
    );
    const http = createServer((request, response) => {
      if (this.#admit(request, response)) void answer(request, response);
    });
    http.on("connection", (socket: Socket) => this.#connections.add(socket));
    this.#place = await takePath(
      socket,
      owner,
      (path) =>
        new Promise<void>((resolve, reject) => {
          http.once("error", reject);
          http.listen(path, resolve);
        }),
    );
    this.#http = http;
    this.#reaper = setInterval(() => {
      for (const session of this.#sessions.values()) {
        if (session.isIdle(config.idleTimeout * 1000)) void session.close();
      }
    }, reapMs);
  }

  get status(): ServedStatus {
    const { name, config } = this.#options;
    const { p50, p99 } = this.#latencies.percentiles;
    return {
      name,
      state: this.#state,
      port: config.port,
      isolation: config.isolation,
      sessions: this.#sessions.size,
      processes: [...this.#children].filter(({ running }) => running).length,
      calls: this.#calls,
      errors: this.#errors,
      latencyMs: { p50, p99 },
      lastError: this.#lastError,
    };
  }

  /** Starts the server once, to detect errors before a client connects. */
  async check(): Promise<void> {
    const { command, missing } = this.#options;
    if (missing !== undefined) return;
    await this.#upstream?.check();
    if (command === undefined) return;
    const child = this.#newChild(command);
    await child.ensure().catch(() => {});
    await child.close();
    this.#children.delete(child);
  }

  async close(): Promise<void> {
    clearInterval(this.#reaper);
    const closed = new Promise((resolve) => this.#http?.close(resolve));
    this.#connections.close();
    await Promise.all([...this.#sessions.values()].map((one) => one.close()));
    await Promise.all([...this.#children].map((child) => child.close()));
    await closed;
    this.#place?.leave();
    this.#options.log.close();
  }

  /** Records a request. If its worker has too many connections, rejects it with 503. */
  #admit(request: IncomingMessage, response: ServerResponse): boolean {
    const token = request.headers[tokenHeader.toLowerCase()]?.toString();
    const worker = workerOf(this.#options.tokenKey, token);
    const answered = this.#connections.noteRequest(request.socket, worker);
    if (answered) {
      response.on("close", answered);
      return true;
    }
    response.writeHead(503, { connection: "close" });
    response.end("This worker has too many connections");
    return false;
  }

  async #handle(request: Request): Promise<Response> {
    const { command = "", missing, config } = this.#options;
    if (!config.api && new URL(request.url).pathname !== "/mcp") {
      return refused(404, "Not found; use /mcp");
    }
    const methods = ["GET", "POST", "DELETE", ...(config.api ? ["HEAD"] : [])];
    if (!methods.includes(request.method)) {
      return refused(405, "Method not allowed");
    }
    const origin = request.headers.get("origin");
    if (origin !== null && !isLocalUrl(origin)) {
      // Sent by browsers: web pages of other hosts must not get access.
      return refused(403, "Origin not allowed: not on this machine");
    }
    if (missing !== undefined) return refused(503, missing);
    if (this.#upstream) return await this.#upstream.forward(request);
    const worker = workerOf(
      this.#options.tokenKey,
      request.headers.get(tokenHeader),
    );
    const id = request.headers.get("mcp-session-id");
    const known = id === null ? undefined : this.#sessions.get(id);
    // The same answer as for an unknown id: do not reveal sessions of other workers.
    if (known && known.worker !== worker) {
      return refused(404, "Session not found");
    }
    if (known) return await known.handle(request);
    if (request.method === "DELETE") return new Response(null, { status: 200 });
    if (id !== null && !/^[0-9a-f-]{36}$/.test(id)) {
      return refused(404, "Session not found");
    }
    const { isolation } = this.#options.config;
    const limits = { ...slotLimits[isolation], ...idle };
    const { isFree, instead } = slotFor(worker, this.#clients, limits);
    if (!isFree) return refused(503, tooManyClients);
    void instead?.close();
    const session = this.#newSession(command, id ?? randomUUID(), worker);
    await session.start();
    // The client's session was in an earlier gateway, or was closed when idle.
    if (id !== null) await session.resume();
    const response = await session.handle(request);
    // Do not keep a session whose first request failed.
    if (!response.ok) await session.close();
    return response;
  }

  #newSession(command: string, id: string, worker: string): Session {
    const shared = this.#options.config.isolation === "shared";
    const child = shared
      ? this.#shared ??= this.#newChild(command)
      : this.#newChild(command, worker);
    const session: Session = new Session({
      id,
      worker,
      child,
      ownsChild: !shared,
      inlet: this.#inlet,
      unread: this.#options.unread,
      answered: (milliseconds, error) => this.#answered(milliseconds, error),
      failed: (reason) => this.#recordError(reason),
      left: () => this.#sessions.delete(id),
      closed: () => {
        this.#clients.delete(session);
        if (!shared) this.#children.delete(child);
      },
    });
    this.#sessions.set(id, session);
    this.#clients.add(session);
    return session;
  }

  #newChild(command: string, worker = "all"): Child {
    const { home, name, config, log, watch } = this.#options;
    const child = new Child({
      home,
      command,
      args: config.args,
      env: config.env,
      tools: this.#tools,
      watch,
      limits: {
        limitGroup: `${name} ${worker}`,
        maxMemoryBytes: parseSize(config.memory),
        maxProcesses: config.processes,
      },
      log: (text) => log.write(text),
      started: (error) => this.#started(error),
      ended: (reason) => this.#recordError(reason, { logged: true }),
    });
    this.#children.add(child);
    return child;
  }

  #answered(milliseconds: number, error: string | undefined): void {
    this.#calls++;
    if (error === undefined) this.#latencies.add(milliseconds);
    else this.#recordError(error);
  }

  #started(error: string | undefined): void {
    this.#state = error === undefined ? "ready" : "failing";
    if (error !== undefined) this.#recordError(error, { logged: true });
  }

  #recordError(message: string, { logged = false } = {}): void {
    this.#errors++;
    // Truncated, because a worker can influence the text.
    this.#lastError = message.slice(0, maxErrorLength);
    if (logged) this.#log(message);
  }

  #log(message: string): void {
    this.#options.log.write(`${new Date().toISOString()} ${message}\n`);
  }
}
