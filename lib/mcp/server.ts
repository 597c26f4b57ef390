// One MCP server as workers reach it: Streamable HTTP on a unix socket of its own.

import { randomUUID } from "node:crypto";
import { createServer, type Server as HttpServer } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { Latencies } from "../latencies.ts";
import { isLocalUrl } from "../local-url.ts";
import type { Owner } from "../owned.ts";
import { mostConnections } from "./carrier.ts";
import { Child } from "./child.ts";
import type { ServedStatus } from "./client.ts";
import type { ServerConfig } from "./config.ts";
import type { ServerLog } from "./server-log.ts";
import { Inlet } from "./inlet.ts";
import type { Unread } from "./outlet.ts";
import { type Place, takePlace } from "./place.ts";
import { refused } from "./refused.ts";
import { Session } from "./session.ts";
import { shippedTools, type Tools } from "./shipped.ts";
import { Upstream } from "./upstream.ts";

/** Where each is a process, and where it is not. */
const mostSessions = { session: 64, shared: 256 };

/** Before a connection that says nothing is no client's. */
const quietMs = 10 * 60_000;

/** Of what is shown of an error. */
const mostErrorLength = 300;

/** A client without a stream for so long makes room for another, if it must. */
const goneMs = 10_000;

/** Between two looks for clients that have gone. */
const reapMs = 1000;

export interface ServedOptions {
  /** Of the instance. */
  home: string;
  name: string;
  config: ServerConfig;
  /** Where its program is; undefined where it is none, or not to be had. */
  command: string | undefined;
  /** Why it cannot be. */
  missing: string | undefined;
  socket: string;
  owner: Owner;
  log: ServerLog;
  /** By the clients of all servers. */
  unread: Unread;
}

export class ServedMcp {
  readonly #options: ServedOptions;
  readonly #sessions = new Map<string, Session>();
  readonly #children = new Set<Child>();
  readonly #latencies = new Latencies();
  readonly #inlet = new Inlet();
  readonly #upstream: Upstream | undefined;
  readonly #sockets = new Set<Socket>();
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
    const http = createServer(getRequestListener(
      (request) => this.#handle(request),
      { overrideGlobalObjects: false },
    ));
    http.on("connection", (connection: Socket) => {
      if (this.#sockets.size >= mostConnections) {
        return connection.destroy();
      }
      connection.setTimeout(quietMs, () => connection.destroy());
      this.#sockets.add(connection);
      connection.on("close", () => this.#sockets.delete(connection));
      connection.on("error", () => {}); // it has gone
    });
    this.#place = await takePlace(
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

  /** Finds out whether it can be started, before a client does. */
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
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([...this.#sessions.values()].map((one) => one.close()));
    await Promise.all([...this.#children].map((child) => child.close()));
    await closed;
    this.#place?.leave();
    this.#options.log.close();
  }

  async #handle(request: Request): Promise<Response> {
    if (new URL(request.url).pathname !== "/mcp") {
      return refused(404, "There is only /mcp");
    }
    const { command = "", missing } = this.#options;
    if (!["GET", "POST", "DELETE"].includes(request.method)) {
      return refused(405, "Method not allowed");
    }
    const origin = request.headers.get("origin");
    if (origin !== null && !isLocalUrl(origin)) {
      // A page in some browser, which should not get here.
      return refused(403, "That origin is not of this machine");
    }
    if (missing !== undefined) return refused(503, missing);
    if (this.#upstream) return await this.#upstream.passOn(request);
    const id = request.headers.get("mcp-session-id");
    const known = id === null ? undefined : this.#sessions.get(id);
    if (known) return await known.handle(request);
    if (request.method === "DELETE") return new Response(null, { status: 200 });
    if (id !== null && !/^[0-9a-f-]{36}$/.test(id)) {
      return refused(404, "Session not found");
    }
    if (!this.#hasRoom()) {
      return refused(503, `It has ${this.#mostSessions} clients already`);
    }
    const session = this.#open(command, id ?? randomUUID());
    await session.start();
    // Known to a gateway before this one, or reaped: it goes on.
    if (id !== null) await session.resume();
    const response = await session.handle(request);
    // What was no greeting, or a wrong one, leaves nothing behind.
    if (!response.ok) await session.close();
    return response;
  }

  get #mostSessions(): number {
    return mostSessions[this.#options.config.isolation];
  }

  /** Whether there may be one client more, in the place of one that has gone, say. */
  #hasRoom(): boolean {
    if (this.#sessions.size < this.#mostSessions) return true;
    const gone = [...this.#sessions.values()]
      .find((session) => session.isIdle(goneMs));
    void gone?.close();
    return gone !== undefined;
  }

  #open(command: string, id: string): Session {
    const shared = this.#options.config.isolation === "shared";
    const child = shared
      ? this.#shared ??= this.#newChild(command)
      : this.#newChild(command);
    const session: Session = new Session({
      id,
      child,
      ownsChild: !shared,
      inlet: this.#inlet,
      unread: this.#options.unread,
      answered: (milliseconds, error) => this.#answered(milliseconds, error),
      failed: (reason) => this.#fail(reason),
      left: () => this.#sessions.delete(id),
      closed: () => {
        if (!shared) this.#children.delete(child);
      },
    });
    this.#sessions.set(id, session);
    return session;
  }

  #newChild(command: string): Child {
    const { home, config, log } = this.#options;
    const child = new Child({
      home,
      command,
      args: config.args,
      env: config.env,
      tools: this.#tools,
      log: (text) => log.write(text),
      started: (error) => this.#started(error),
      ended: (reason) => this.#fail(reason, { logged: true }),
    });
    this.#children.add(child);
    return child;
  }

  #answered(milliseconds: number, error: string | undefined): void {
    this.#calls++;
    if (error === undefined) this.#latencies.add(milliseconds);
    else this.#fail(error);
  }

  #started(error: string | undefined): void {
    this.#state = error === undefined ? "ready" : "failing";
    if (error !== undefined) this.#fail(error, { logged: true });
  }

  #fail(message: string, { logged = false } = {}): void {
    this.#errors++;
    // A worker may choose it.
    this.#lastError = message.slice(0, mostErrorLength);
    if (logged) this.#log(message);
  }

  #log(message: string): void {
    this.#options.log.write(`${new Date().toISOString()} ${message}\n`);
  }
}
