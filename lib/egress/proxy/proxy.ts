// The egress proxy: CONNECT, and HTTP requests with an absolute URL, over a unix socket
// whose connections begin with the container that they come from. A connection serves
// one request. See docs/adr/0035 for why this is no library.

import type { Buffer } from "node:buffer";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { Changes } from "../../std/changes.ts";
import { messageOf } from "../../std/errors.ts";
import { readOrigin } from "../../std/origin.ts";
import { joinSockets } from "../../gateway/forward.ts";
import { hostOrigin } from "../ask.ts";
import type { Entry } from "../journal.ts";
import { type Client, type Policy, secretsOf } from "../policy.ts";
import {
  connectTarget,
  type Target,
  targetText,
  urlTarget,
} from "../target.ts";
import { upstreamFor } from "../upstream.ts";
import { finish, responseText } from "./answer.ts";
import type { Bounds } from "./bounds.ts";
import { answerCheck } from "./check.ts";
import { judge, type Judgement, judgeTarget } from "./judge.ts";
import { passOn } from "./plain.ts";
import { SecretRequests } from "./secrets.ts";
import { Throttle } from "./throttle.ts";
import { connectToProxy, openTunnelThrough } from "./through.ts";
import { connectFirst, type World } from "./world.ts";

export interface ProxyOptions {
  world: World;
  bounds: Bounds;
  record: (entry: Entry) => void;
}

/** A connection from a worker. */
interface Connection {
  socket: Socket;
  /** The container's id. */
  origin: string;
  /** Undefined for an unknown container. */
  client: Client | undefined;
  /** The request that it serves. */
  target?: Target;
  /** Addresses of the target that were allowed. */
  addresses?: string[];
  /** Names of the secrets that are set in its request. */
  secrets?: string[];
}

export class EgressProxy {
  readonly #options: ProxyOptions;
  readonly #server: Server;
  readonly #http: HttpServer;
  readonly #throttle: Throttle;
  readonly #secretRequests: SecretRequests;
  /** All connections, those that have not sent their origin included. */
  #open = 0;
  readonly #connections = new Map<Duplex, Connection>();
  #policy: Policy | undefined;
  /** Of the policy. */
  readonly #changes = new Changes();

  constructor(options: ProxyOptions) {
    this.#options = options;
    const { entries, entriesPerSecond, headBytes } = options.bounds;
    this.#throttle = new Throttle(entries, entriesPerSecond);
    this.#secretRequests = new SecretRequests(options.bounds);
    this.#http = createHttpServer({ maxHeaderSize: headBytes })
      .on(
        "connect",
        (request, socket, head) =>
          void this.#tunnel(request, socket, head)
            .catch(() => socket.destroy()),
      )
      .on(
        "request",
        (request, response) =>
          void this.#request(request, response)
            .catch(() => request.socket.destroy()),
      )
      // A malformed request.
      .on(
        "clientError",
        (_, socket) =>
          finish(socket, responseText(400, "The request is not valid")),
      );
    this.#server = createServer(
      { allowHalfOpen: true },
      (socket) => void this.#accept(socket),
    );
  }

  get server(): Server {
    return this.#server;
  }

  /** Undefined refuses everything. Ends connections that the new policy refuses. */
  setPolicy(policy: Policy | undefined): void {
    this.#policy = policy;
    this.#changes.tell();
    this.#throttle.keep(new Set(Object.keys(policy?.workers ?? {})));
    for (const connection of this.#connections.values()) {
      const { origin, target, socket } = connection;
      if (!target || origin === hostOrigin) continue;
      connection.client = policy?.workers[origin];
      const { allowed } = judgeTarget(
        policy,
        asking(connection),
        target,
        connection.addresses,
      );
      const left = secretsOf(policy, connection.client, target)
        .map(({ name }) => name);
      const isRemoved = connection.secrets?.some((name) =>
        !left.includes(name)
      );
      if (!allowed || !connection.client || isRemoved) socket.destroy();
    }
  }

  get #judging() {
    const { world, bounds: { lookupMs } } = this.#options;
    return { world, lookupMs };
  }

  async #accept(socket: Socket): Promise<void> {
    const { bounds } = this.#options;
    socket.on("error", () => socket.destroy());
    if (this.#open >= bounds.connections) return void socket.destroy();
    this.#open++;
    socket.on("close", () => {
      this.#open--;
      this.#connections.delete(socket);
    });
    let origin: string | null;
    try {
      origin = await readOrigin(socket);
    } catch {
      return;
    }
    // No rules exist for a connection whose worker is not known.
    if (origin === null) return void socket.destroy();
    const connection: Connection = { socket, origin, client: undefined };
    const same = [...this.#connections.values()]
      .filter((other) => other.origin === origin).length;
    if (same >= bounds.perWorker) {
      const sentence = "This worker has too many connections";
      return finish(socket, responseText(503, sentence));
    }
    this.#connections.set(socket, connection);
    connection.client = await this.#clientOf(origin);
    if (socket.destroyed) return;
    socket.setTimeout(bounds.idleMs, () => socket.destroy());
    // Data that is not a request does not extend this.
    const late = setTimeout(() => socket.destroy(), bounds.headMs);
    const begun = () => clearTimeout(late);
    socket.on("close", begun);
    this.#begun.set(socket, begun);
    this.#http.emit("connection", socket);
  }

  readonly #begun = new WeakMap<Duplex, () => void>();

  /** The worker of a container. The record of a new worker may not have arrived. */
  async #clientOf(origin: string): Promise<Client | undefined> {
    const until = performance.now() + this.#options.bounds.unknownMs;
    while (origin !== hostOrigin) {
      const client = this.#policy?.workers[origin];
      if (client || !await this.#changes.next(until)) return client;
    }
    return undefined;
  }

  /** Takes the request of a connection; undefined if it had one before. */
  #take(socket: Duplex): Connection | undefined {
    const connection = this.#connections.get(socket);
    const begun = this.#begun.get(socket);
    this.#begun.delete(socket);
    begun?.();
    if (connection && begun) return connection;
    socket.destroy();
    return undefined;
  }

  async #tunnel(
    { url = "" }: IncomingMessage,
    socket: Duplex,
    first: Buffer,
  ): Promise<void> {
    const connection = this.#take(socket);
    if (!connection) return;
    const target = connectTarget(url);
    const found = await this.#connect(connection, url, target, true);
    if ("status" in found) {
      return finish(
        socket,
        responseText(found.status, found.sentence, target),
      );
    }
    const { server, ended, open } = found;
    const note: Partial<Entry> = {};
    ended(socket, note);
    socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
    const secrets = () =>
      target ? secretsOf(this.#policy, connection.client, target) : [];
    connection.secrets = secrets().map(({ name }) => name);
    if (target && connection.secrets.length > 0) {
      const ca = this.#policy?.upstream.ca ?? null;
      const tunnel = { target, server, open, ca, secrets, note };
      return this.#secretRequests.serve(connection.socket, first, tunnel);
    }
    if (first.length > 0) server.write(first);
    joinSockets(socket, server);
  }

  async #request(
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const connection = this.#take(request.socket);
    if (!connection) return;
    response.shouldKeepAlive = false;
    const { url = "" } = request;
    if (connection.origin === hostOrigin) {
      return await answerCheck(
        () => this.#policy,
        url,
        response,
        this.#judging,
      );
    }
    const parsed = urlTarget(url);
    const found = await this.#connect(connection, url, parsed?.target, false);
    if ("status" in found || !parsed) {
      const { status, sentence } = found as Refusal;
      const text = responseText(status, sentence, parsed?.target);
      request.resume(); // until the client has the answer
      return finish(request.socket, text);
    }
    const { server, ended, via } = found;
    ended(request.socket);
    passOn(request, response, { ...parsed, server, via });
  }

  /** Judges a request and connects to its server. */
  async #connect(
    connection: Connection,
    url: string,
    target: Target | undefined,
    isTunnel: boolean,
  ): Promise<Refusal | Connected> {
    const { origin, client } = connection;
    const refuse = (status: number, found: Partial<Judgement>): Refusal => {
      const sentence = found.sentence ?? "";
      this.#record(connection, {
        ...placeOf(target, url),
        verdict: found.failed ? "failed" : "refused",
        rule: found.rule ?? "",
        reason: sentence,
        bytesUp: 0,
        bytesDown: 0,
      });
      return { status, sentence };
    };
    if (!target) {
      return refuse(400, {
        rule: "form",
        sentence:
          "Egress is refused, because the request names no valid host and port: it must be CONNECT HOST:PORT, or a URL that begins with http://.",
      });
    }
    if (!client) {
      return refuse(403, {
        rule: "unknown worker",
        sentence: `Egress to ${
          targetText(target)
        } is refused, because the container ${
          origin.slice(0, 12)
        } is no known worker.`,
      });
    }
    connection.target = target;
    const upstream = this.#policy?.upstream;
    const via = upstream && upstreamFor(upstream, target, isTunnel);
    const found = await judge(
      () => this.#policy,
      asking(connection),
      target,
      { ...this.#judging, mustResolve: !via },
    );
    if (!found.allowed) return refuse(403, found);
    if (found.failed) return refuse(502, found);
    connection.addresses = found.addresses;
    const { world, bounds } = this.#options;
    const open = async (): Promise<{ socket: Socket; address?: string }> => {
      if (!via) {
        const { addresses } = found;
        return await connectFirst(
          world,
          addresses,
          target.port,
          bounds.connectMs,
        );
      }
      const socket = await connectToProxy(world, via, upstream.ca, bounds);
      if (isTunnel) {
        await openTunnelThrough(socket, via, target, bounds.connectMs);
      }
      return { socket };
    };
    try {
      const { socket: server, address } = await open();
      // The worker has left, or the policy has changed.
      if (connection.socket.destroyed) server.destroy();
      const ended = (socket: Duplex, note: Partial<Entry> = {}) => {
        socket.on("close", () => server.destroy());
        server.on("close", () =>
          this.#record(connection, {
            ...target,
            ...(address === undefined ? {} : { address }),
            verdict: "allowed",
            rule: found.rule,
            bytesUp: server.bytesWritten,
            bytesDown: server.bytesRead,
            ...note,
          }));
      };
      return { server, ended, via, open };
    } catch (error) {
      return refuse(502, {
        ...found,
        failed: true,
        sentence: `Egress to ${
          targetText(target)
        } is allowed, but the server cannot be reached: ${messageOf(error)}`,
      });
    }
  }

  #record(
    { origin, client }: Connection,
    entry: Omit<Entry, "time" | "session" | "worker">,
  ): void {
    const dropped = this.#throttle.pass(client ? origin : "");
    if (dropped === undefined) return;
    this.#options.record({
      time: new Date().toISOString(),
      session: client?.session ?? null,
      worker: client?.worker ?? null,
      ...entry,
      ...(dropped > 0 ? { dropped } : {}),
    });
  }
}

interface Connected {
  server: Socket;
  /** Ends the connection with the worker's, and records it. */
  ended: (socket: Duplex, note?: Partial<Entry>) => void;
  /** The user's own proxy, if it is connected to that. */
  via: URL | undefined;
  /** Another connection to the same server. */
  open: () => Promise<{ socket: Socket }>;
}

interface Refusal {
  status: number;
  sentence: string;
}

function asking({ client }: Connection) {
  return { session: client?.session ?? null, project: client?.project ?? null };
}

/** The host and port of an entry; what was requested if that is not valid. */
function placeOf(target: Target | undefined, url: string) {
  return target ?? { host: url.slice(0, 255), port: null };
}
