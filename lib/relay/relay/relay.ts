// The relay: ends TLS for the Anthropic API, replaces the placeholder of a session by the
// credential, and passes requests and replies on as they come. Retries nothing, except
// a request whose login has expired.

import { createHash } from "node:crypto";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from "node:http";
import { createServer, type Server } from "node:net";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { Throttle } from "../../egress/proxy/throttle.ts";
import {
  type Exchange as Metered,
  isCounted,
  type Meter,
} from "../../usage/meter.ts";
import { Changes } from "../../std/changes.ts";
import { Counts } from "../../std/counts.ts";
import { readOrigin } from "../../std/origin.ts";
import { Valve } from "../../std/tls-gate.ts";
import type { Entry } from "../entry.ts";
import type { Report, State } from "../state.ts";
import {
  checkPlaceholder,
  credentialFor,
  credentialsIn,
  type Given,
  isOwn,
  type Origin,
  type Session,
  sessionOf,
} from "./authorize.ts";
import { Room } from "./body.ts";
import type { Bounds } from "./bounds.ts";
import { type Connection, Connections } from "./connections.ts";
import { Exchange } from "./exchange.ts";
import { mayUse } from "./paths.ts";
import { refuse, Refused, refused, unreachable } from "./refusal.ts";
import { Upstreams } from "./upstream.ts";

export interface RelayOptions {
  bounds: Bounds;
  report: (report: Report) => void;
  meter: Meter;
}

export class Relay {
  readonly #options: RelayOptions;
  readonly #http: HttpServer;
  readonly #throttle: Throttle;
  readonly #upstreams: Upstreams;
  readonly #connections: Connections;
  readonly #room: Room;
  /** By their TLS sockets. */
  readonly #secured = new WeakMap<
    object,
    { connection: Connection; gate: Valve }
  >();
  #state: State | undefined;
  #context: SecureContext | undefined;
  #loginSince = -Infinity;
  /** Of the state. */
  readonly #changes = new Changes();
  /** Requests that wait until their placeholder is known. */
  readonly #unknown = new Counts<Origin>();

  constructor(options: RelayOptions) {
    const { bounds } = options;
    this.#options = options;
    this.#throttle = new Throttle(bounds.entries, bounds.entriesPerSecond);
    this.#upstreams = new Upstreams(bounds);
    this.#connections = new Connections(bounds);
    this.#room = new Room(bounds.keptBytesOfAll);
    this.#http = createHttpServer(
      {
        maxHeaderSize: bounds.headBytes,
        headersTimeout: bounds.headMs,
        requestTimeout: bounds.idleMs,
        keepAliveTimeout: 60_000,
        connectionsCheckingInterval: Math.ceil(bounds.headMs / 2),
      },
      (request, response) => void this.#serve(request, response),
    );
    this.#http.on("clientError", (_, socket) => socket.destroy());
    // Only one that listens enforces its timeouts, and keeps connections for the next request.
    Object.defineProperty(this.#http, "listening", { value: true });
    this.#http.emit("listening");
  }

  /** A server for connections that begin with their origin, as nsenter passes them on. */
  server(): Server {
    return createServer(async (socket) => {
      socket.on("error", () => socket.destroy());
      const connection = this.#connections.add(socket);
      if (!connection) return;
      try {
        this.#accept(connection, await readOrigin(socket) ?? undefined);
      } catch {
        // It does not come from nsenter.
      }
    });
  }

  setState(state: State): void {
    const before = this.#state;
    if (state.leaf.cert !== before?.leaf.cert) {
      this.#context = createSecureContext({
        ...state.leaf,
        minVersion: "TLSv1.2",
      });
    }
    // The first one may be old.
    if (before && state.credentials.login !== before.credentials.login) {
      this.#loginSince = performance.now();
    }
    this.#state = state;
    this.#options.meter.setState(state.usage);
    this.#throttle.keep(
      new Set(
        Object.entries(state.workers).flatMap((
          [container, { home }],
        ) => [container, home]).concat(""),
      ),
    );
    this.#changes.tell();
  }

  #accept(connection: Connection, origin: Origin): void {
    const { bounds } = this.#options;
    const { socket } = connection;
    if (!this.#context) return void socket.destroy();
    if (!this.#connections.identify(connection, origin)) return;
    socket.setNoDelay(true);
    const secured = new TLSSocket(socket, {
      isServer: true,
      secureContext: this.#context,
      ALPNProtocols: ["http/1.1"],
    });
    secured.on("error", () => socket.destroy());
    secured.on("close", () => socket.destroy());
    socket.on("close", () => secured.destroy());
    const late = setTimeout(() => socket.destroy(), bounds.headMs);
    secured.once("data", () => clearTimeout(late));
    socket.on("close", () => clearTimeout(late));
    this.#secured.set(secured, { connection, gate: new Valve(socket) });
    this.#http.emit("connection", secured);
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const { method = "", url = "" } = request;
    const path = url.replace(/\?.*$/s, "");
    const startedAt = performance.now();
    const entry: Partial<Entry> = {};
    const secured = this.#secured.get(request.socket);
    if (!secured) return;
    const { connection, gate } = secured;
    if (!this.#connections.begin(connection, response)) return;
    const { origin } = connection;
    const { bounds, meter } = this.#options;
    const exchange = new Exchange(request, response, bounds, gate, this.#room);
    let session: Session | undefined;
    let taken: string | undefined;
    const given = credentialsIn(request.rawHeaders);
    request.on("error", () => response.destroy());
    try {
      session = await this.#sessionOf(given, origin);
      checkPlaceholder(session, given, method);
      if (!mayUse(session.grant, method, path)) {
        throw refused(
          403,
          "permission_error",
          `HAL-9000's relay does not pass on ${method} ${path}`,
        );
      }
      const { home } = session.client;
      if (!this.#connections.take(home)) throw tooMany();
      taken = home;
      const metered: Metered = {
        session: session.client.session ?? session.client.worker,
        project: session.client.project,
        method,
        path,
        at: Date.now(),
      };
      const refusal = meter.admit(metered);
      if (refusal) throw new Refused(refusal);
      exchange.isCounted = isCounted(metered);
      const reply = await this.#reply(exchange, session, given.length > 0);
      const figures = await exchange.passOn(
        reply,
        meter.reply(metered, reply.statusCode ?? 0, reply.headers),
      );
      if (figures.input + figures.output > 0) Object.assign(entry, figures);
    } catch (error) {
      const { refusal, detail } = unreachable(error);
      entry.reason = exchange.hasLeft
        ? "the worker has left before the reply"
        : detail.slice(0, 1024);
      if (!exchange.hasLeft) exchange.status ??= refusal.status;
      refuse(response, refusal);
      exchange.discardBody(); // until the client has the reply
    }
    await exchange.closed;
    if (taken !== undefined) this.#connections.release(taken);
    this.#record(origin, session, {
      method: method.slice(0, 32),
      path: path.slice(0, 1024),
      status: exchange.status ?? null,
      ms: Math.round(performance.now() - startedAt),
      bytesUp: exchange.bytesUp,
      bytesDown: exchange.bytesDown,
      ...entry,
    });
  }

  /** The session of a request, whose record or placeholder may not have arrived. */
  async #sessionOf(given: Given[], origin: Origin): Promise<Session> {
    const until = performance.now() + this.#options.bounds.unknownMs;
    let found: Session | undefined;
    while (true) {
      found = this.#state && sessionOf(this.#state, origin, given);
      if (found && isOwn(found, given)) return found;
      if (origin === undefined && given.length === 0) break;
      // Those that wait make no room for others.
      if (this.#unknown.of(origin) >= this.#options.bounds.perWorker) break;
      this.#unknown.add(origin);
      const hasChanged = await this.#changes.next(until);
      this.#unknown.remove(origin);
      if (!hasChanged) break;
    }
    if (found) return found; // which refuses it
    throw refused(
      401,
      "authentication_error",
      origin === undefined
        ? "This is not the placeholder of a session"
        : "This worker has no session",
    );
  }

  /** The head of the API's reply, of the second request if the login had expired. */
  async #reply(
    exchange: Exchange,
    session: Session,
    hasCredential: boolean,
  ): Promise<IncomingMessage> {
    const state = this.#state;
    if (!state) throw new Error("the relay has no credentials yet");
    const { grant } = session;
    const credential = grant.kind === "own"
      ? undefined
      : credentialFor(session, state);
    // A refusal of a request without it says nothing about the login.
    const isLogin = grant.kind === "login" && hasCredential;
    if (isLogin) exchange.keepBody();
    const send = async (text: string | undefined) =>
      await exchange.send(
        await this.#upstreams.begin(grant, exchange.outgoing(grant, text)),
      );
    const reply = await send(credential);
    if (reply.statusCode !== 401 || !isLogin || credential === undefined) {
      return reply;
    }
    reply.destroy();
    const renewed = await this.#renewed(session, credential);
    if (!exchange.canRepeat) {
      throw refused(
        503,
        "overloaded_error",
        "The login was refreshed meanwhile; try again",
      );
    }
    const second = await send(renewed);
    if (second.statusCode !== 401) return second;
    second.destroy();
    throw rejectedLogin();
  }

  /** The access token after the one that was refused. */
  async #renewed(session: Session, before: string): Promise<string> {
    const { refreshMs, freshMs } = this.#options.bounds;
    const until = performance.now() + refreshMs;
    const current = () =>
      this.#state ? credentialFor(session, this.#state) : before;
    if (current() === before) {
      if (performance.now() - this.#loginSince < freshMs) throw rejectedLogin();
      const digest = createHash("sha256").update(before).digest("hex");
      this.#options.report({ kind: "rejected", digest });
    }
    while (current() === before) {
      if (await this.#changes.next(until)) continue;
      throw refused(
        503,
        "overloaded_error",
        "The login of HAL-9000 cannot be refreshed at the moment; try again",
      );
    }
    return current();
  }

  #record(
    origin: Origin,
    session: Session | undefined,
    entry: Omit<Entry, "time" | "session" | "worker">,
  ): void {
    const client = session?.client ??
      (origin === undefined ? undefined : this.#state?.workers[origin]);
    const dropped = this.#throttle.pass(client ? origin ?? client.home : "");
    if (dropped === undefined) return;
    this.#options.report({
      kind: "entry",
      entry: {
        time: new Date().toISOString(),
        session: client?.session ?? null,
        worker: client?.worker ?? null,
        ...entry,
        ...(dropped > 0 ? { dropped } : {}),
      },
    });
  }
}

function tooMany(): Refused {
  return refused(
    429,
    "rate_limit_error",
    "This session has too many open requests",
  );
}

function rejectedLogin(): Refused {
  // Not 401: the CLI would forget its login.
  return refused(
    403,
    "permission_error",
    "The API refuses the login of HAL-9000: log in again with claudy login",
  );
}
