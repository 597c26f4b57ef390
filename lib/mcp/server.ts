// One MCP server as workers reach it: Streamable HTTP on a unix socket of its own.

import { randomUUID } from "node:crypto";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { Metrics } from "../pool/metrics.ts";
import { Child } from "./child.ts";
import type { ServedStatus } from "./client.ts";
import type { ServerConfig } from "./config.ts";
import type { ServerLog } from "./server-log.ts";
import { Session } from "./session.ts";

/** Each may be a process. */
const mostSessions = 64;

/** A client without a stream for so long makes room for another, if it must. */
const goneMs = 10_000;

/** Between two looks for clients that have gone. */
const reapMs = 1000;

const ofOneConnection = [
  ...["host", "connection", "keep-alive", "transfer-encoding", "upgrade"],
  "content-length",
];

export interface ServedOptions {
  name: string;
  config: ServerConfig;
  /** Where its program is; undefined where it is none, or not to be had. */
  command: string | undefined;
  /** Why it cannot be. */
  missing: string | undefined;
  socket: string;
  log: ServerLog;
}

export class ServedMcp {
  readonly #options: ServedOptions;
  readonly #sessions = new Map<string, Session>();
  readonly #children = new Set<Child>();
  readonly #metrics = new Metrics();
  readonly #sockets = new Set<Socket>();
  #shared: Child | undefined;
  #http: HttpServer | undefined;
  #reaper: ReturnType<typeof setInterval> | undefined;
  #calls = 0;
  #errors = 0;
  #lastError: string | null = null;
  #state: ServedStatus["state"];

  constructor(options: ServedOptions) {
    this.#options = options;
    this.#state = options.missing === undefined ? "starting" : "missing";
    this.#lastError = options.missing ?? null;
  }

  async listen(): Promise<void> {
    const { socket, config } = this.#options;
    const http = createServer(getRequestListener(
      (request) => this.#handle(request),
      { overrideGlobalObjects: false },
    ));
    http.on("connection", (connection: Socket) => {
      this.#sockets.add(connection);
      connection.on("close", () => this.#sockets.delete(connection));
      connection.on("error", () => {}); // it has gone
    });
    rmSync(socket, { force: true });
    await new Promise<void>((resolve, reject) => {
      http.once("error", reject);
      http.listen(socket, resolve);
    });
    chmodSync(socket, 0o600);
    this.#http = http;
    this.#reaper = setInterval(() => {
      for (const session of this.#sessions.values()) {
        if (session.isIdle(config.idleTimeout * 1000)) void session.close();
      }
    }, reapMs);
  }

  get status(): ServedStatus {
    const { name, config } = this.#options;
    const { p50, p99 } = this.#metrics.latencyMs;
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
    const { command, missing, config } = this.#options;
    if (missing !== undefined) return;
    if (config.url !== undefined) {
      await this.#ask(config.url, { method: "HEAD" }).catch(() => {});
    } else if (command !== undefined) {
      const child = this.#newChild(command);
      await child.ensure().catch(() => {});
      await child.close();
      this.#children.delete(child);
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#reaper);
    await Promise.all([...this.#sessions.values()].map((one) => one.close()));
    await Promise.all([...this.#children].map((child) => child.close()));
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#http?.close(resolve));
    rmSync(this.#options.socket, { force: true });
    this.#options.log.close();
  }

  async #handle(request: Request): Promise<Response> {
    if (new URL(request.url).pathname !== "/mcp") {
      return refused(404, "There is only /mcp");
    }
    const { name, command = "", missing, config } = this.#options;
    if (missing !== undefined) return refused(503, `${name}: ${missing}`);
    if (config.url !== undefined) {
      return await this.#passOn(config.url, request);
    }
    const id = request.headers.get("mcp-session-id");
    let session = id === null ? undefined : this.#sessions.get(id);
    if (!session) {
      if (request.method === "DELETE") {
        return new Response(null, { status: 200 });
      }
      if (!this.#hasRoom()) {
        return refused(503, `${name} has ${mostSessions} clients already`);
      }
      if (id !== null && !/^[0-9a-f-]{36}$/.test(id)) {
        return refused(404, "Session not found");
      }
      session = this.#open(command, id ?? randomUUID());
      await session.start();
      // Known to a gateway before this one, or reaped: it goes on.
      if (id !== null) await session.resume();
    }
    const response = await session.handle(request);
    // What was no greeting, or a wrong one, leaves nothing behind.
    if (id === null && !response.ok) await session.close();
    return response;
  }

  /** To a server that speaks HTTP itself; its sessions are its own. */
  async #passOn(url: string, request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    for (const name of ofOneConnection) headers.delete(name);
    // What is fetched is decoded, and would still be called encoded.
    headers.set("accept-encoding", "identity");
    for (const [name, value] of Object.entries(this.#options.config.headers)) {
      headers.set(name, value);
    }
    const startedAt = performance.now();
    try {
      const response = await this.#ask(url, {
        method: request.method,
        headers,
        body: request.body,
        signal: request.signal,
        // As it comes: it may be large.
        ...{ duplex: "half" },
      });
      this.#calls++;
      this.#metrics.claimed(performance.now() - startedAt);
      return response;
    } catch {
      return refused(502, this.#lastError ?? "");
    }
  }

  async #ask(url: string, init: RequestInit): Promise<Response> {
    try {
      const response = await fetch(url, { ...init, redirect: "manual" });
      this.#state = "ready";
      return response;
    } catch (error) {
      this.#state = "failing";
      this.#fail(`${this.#options.name} does not answer`);
      throw error;
    }
  }

  /** Whether there may be one client more, in the place of one that has gone, say. */
  #hasRoom(): boolean {
    if (this.#sessions.size < mostSessions) return true;
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
      answered: (milliseconds, error) => {
        this.#calls++;
        this.#metrics.claimed(milliseconds);
        if (error !== undefined) this.#fail(error);
      },
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
    const { name, config, log } = this.#options;
    const child = new Child({
      name,
      command,
      args: config.args,
      env: config.env,
      log: (text) => log.write(text),
      started: (error) => {
        this.#state = error === undefined ? "ready" : "failing";
        if (error !== undefined) this.#fail(error);
      },
      ended: (reason) => this.#fail(reason),
    });
    this.#children.add(child);
    return child;
  }

  #fail(message: string): void {
    this.#errors++;
    this.#lastError = message;
  }
}

function refused(status: number, message: string): Response {
  const error = { code: -32000, message };
  return Response.json({ jsonrpc: "2.0", error, id: null }, { status });
}
