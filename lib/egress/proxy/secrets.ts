// Requests to hosts of secrets: ends the worker's TLS, sets the headers, and sends the request
// over TLS of its own. A connection serves one request.

import type { Buffer } from "node:buffer";
import {
  Agent,
  type ClientRequest,
  createServer as createHttpServer,
  type IncomingMessage,
  request as requestServer,
  type Server as HttpServer,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import {
  connect as connectTls,
  createSecureContext,
  TLSSocket,
} from "node:tls";
import { messageOf } from "../../std/errors.ts";
import { Gate } from "../../std/tls-gate.ts";
import type { Entry } from "../journal.ts";
import type { NamedSecret } from "../policy.ts";
import { type Target, targetText } from "../target.ts";
import type { Bounds } from "./bounds.ts";
import { forwardedHeaders } from "./headers.ts";
import { within } from "./world.ts";

/** A tunnel whose TLS is ended here. */
export interface Tunnel {
  target: Target;
  /** The connection to the server, without TLS. */
  server: Socket;
  /** Another one. */
  open: () => Promise<{ socket: Socket }>;
  /** Certificates that the user trusts in addition, as PEM. */
  ca: string | null;
  /** The secrets at this moment; none if they were removed. */
  secrets: () => NamedSecret[];
  /** Added to the entry in the log. */
  note: Partial<Entry>;
}

interface Asking extends Tunnel {
  /** Of the worker. */
  gate: Gate;
  begun: () => void;
}

export class SecretRequests {
  readonly #bounds: Pick<Bounds, "headBytes" | "headMs" | "connectMs">;
  readonly #http: HttpServer;
  /** Connections whose request has not come yet, by their TLS sockets. */
  readonly #asking = new WeakMap<object, Asking>();
  /** Whether the user's certificates vouch for a host, or else the system's. */
  readonly #ofUser = new Map<string, boolean>();

  constructor(bounds: Pick<Bounds, "headBytes" | "headMs" | "connectMs">) {
    this.#bounds = bounds;
    this.#http = createHttpServer({ maxHeaderSize: bounds.headBytes })
      .on(
        "request",
        (request, response) =>
          void this.#request(request, response)
            .catch(() => request.socket.destroy()),
      )
      .on("connect", (_, socket) => socket.destroy())
      .on("clientError", (_, socket) => socket.destroy());
  }

  /** Serves a tunnel; `first` was received before its TLS was begun. */
  serve(socket: Socket, first: Buffer, tunnel: Tunnel): void {
    const [secret] = tunnel.secrets();
    if (!secret) return void socket.destroy();
    const gate = new Gate(socket).on("error", () => socket.destroy());
    if (first.length > 0) gate.push(first);
    const secured = new TLSSocket(gate, {
      isServer: true,
      secureContext: createSecureContext({
        ...secret.leaf,
        minVersion: "TLSv1.2",
      }),
      ALPNProtocols: ["http/1.1"],
    });
    secured.on("error", () => socket.destroy());
    secured.on("close", () => socket.destroy());
    socket.on("close", () => secured.destroy());
    const late = setTimeout(() => socket.destroy(), this.#bounds.headMs);
    const begun = () => clearTimeout(late);
    socket.on("close", begun);
    this.#asking.set(secured, { ...tunnel, gate, begun });
    this.#http.emit("connection", secured);
  }

  async #request(
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const asking = this.#asking.get(request.socket);
    this.#asking.delete(request.socket);
    // A second request.
    if (!asking) return void request.socket.destroy();
    asking.begun();
    const { target, server, note, gate } = asking;
    request.on("error", () => request.socket.destroy());
    response.on("error", () => request.socket.destroy());
    response.on("close", () => server.destroy());
    response.shouldKeepAlive = false;
    const answer = (status: number, sentence: string) => {
      note.reason = sentence;
      refuse(response, status, sentence);
      gate.release();
      request.resume(); // until the worker has the reply
    };
    const fault = faultOf(request, target.host);
    if (fault) {
      note.verdict = "refused";
      return answer(fault.status, fault.sentence);
    }
    const failed = (error: unknown) => {
      note.verdict = "failed";
      const place = targetText(target);
      // It may name everything that the server's certificate is for.
      const cause = messageOf(error).slice(0, 300);
      answer(502, `${place} does not answer: ${cause}`);
    };
    gate.hold(); // A worker could send much meanwhile.
    let upstream: { socket: Socket; gate: Gate };
    try {
      upstream = await this.#secure(
        server,
        target.host,
        await this.#authoritiesFor(asking),
      );
    } catch (error) {
      this.#ofUser.delete(keyOf(asking));
      server.destroy();
      return failed(error);
    }
    const secrets = asking.secrets();
    if (secrets.length === 0 || response.destroyed) {
      return void request.socket.destroy();
    }
    note.secrets = secrets.map(({ name }) => name);
    const passed = requestOver(upstream.socket, request, target, secrets);
    passed.on("response", (reply) => {
      // Also those of another protocol.
      if ((reply.statusCode ?? 0) < 200) {
        return void passed.destroy(new Error("its reply is not valid"));
      }
      passReply(reply, response, upstream.gate);
    });
    const broken = (error: unknown) => {
      server.destroy();
      if (!response.headersSent) failed(error);
    };
    passed.on("upgrade", () => broken(new Error("its reply is not valid")));
    passed.on("error", broken);
    passed.on("close", () => {
      // A reply that has begun may not have been read yet.
      if (!response.headersSent) broken(new Error("the connection was closed"));
    });
    request.on("data", (chunk) => {
      if (passed.write(chunk)) return;
      request.pause();
      gate.hold();
    });
    gate.release();
    passed.on("drain", () => {
      gate.release();
      request.resume();
    });
    request.on("end", () => passed.end());
  }

  /**
   * The user's certificates if they vouch for the server, else undefined for the system's. Which of
   * them do is tried on a connection of its own: to read both takes 40 ms each time.
   */
  async #authoritiesFor(asking: Asking): Promise<string | undefined> {
    const { target, ca, open } = asking;
    if (ca === null) return undefined;
    const key = keyOf(asking);
    let isOfUser = this.#ofUser.get(key);
    if (isOfUser === undefined) {
      const { socket } = await open();
      isOfUser = await this.#secure(socket, target.host, ca)
        .then(() => true, () => false);
      socket.destroy();
      this.#ofUser.set(key, isOfUser);
    }
    return isOfUser ? ca : undefined;
  }

  #secure(socket: Socket, host: string, ca: string | undefined) {
    const { connectMs } = this.#bounds;
    return within(secure(socket, host, ca), connectMs, "TLS takes too long");
  }
}

function keyOf({ target, ca }: Tunnel): string {
  return `${target.host} ${ca}`;
}

/** What makes a request ambiguous, or one that the host is not asked. */
export function faultOf(
  { method = "", url = "", rawHeaders, httpVersion }: Pick<
    IncomingMessage,
    "method" | "url" | "rawHeaders" | "httpVersion"
  >,
  host: string,
): { status: number; sentence: string } | undefined {
  const valuesOf = (wanted: string) =>
    rawHeaders.filter((_, at) =>
      at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === wanted
    );
  // Its reply contains the request's headers.
  if (method === "TRACE") {
    return { status: 405, sentence: "TRACE is not passed on" };
  }
  if (!url.startsWith("/") && !(method === "OPTIONS" && url === "*")) {
    return { status: 400, sentence: "The request names no path" };
  }
  const [given, ...others] = valuesOf("host");
  const isHost = given?.toLowerCase().replace(/:443$/, "") === host;
  if (!isHost || others.length > 0 || httpVersion !== "1.1") {
    return { status: 421, sentence: `This connection is for ${host} only` };
  }
  const codings = valuesOf("transfer-encoding");
  const lengths = valuesOf("content-length");
  const isFramed = codings.length + lengths.length <= 1 &&
    codings.every((coding) => coding.toLowerCase() === "chunked") &&
    lengths.every((length) => /^\d{1,15}$/.test(length));
  return isFramed
    ? undefined
    : { status: 400, sentence: "The length of the body is ambiguous" };
}

/** Of the worker's, those that the secrets are in place of are left out. */
function headersWith(
  rawHeaders: readonly string[],
  secrets: readonly NamedSecret[],
): string[] {
  const replaced = new Set([
    ...secrets.map(({ header }) => header.toLowerCase()),
    // Answered here.
    "expect",
  ]);
  const kept = forwardedHeaders(rawHeaders);
  return [
    ...kept.filter((_, at) =>
      !replaced.has((kept[at - at % 2] ?? "").toLowerCase())
    ),
    ...secrets.flatMap(({ header, value }) => [header, value]),
  ];
}

function requestOver(
  socket: Socket,
  { method = "", url = "", rawHeaders }: IncomingMessage,
  { host, port }: Target,
  secrets: readonly NamedSecret[],
): ClientRequest {
  const agent = new Agent({ keepAlive: false });
  Object.assign(agent, { createConnection: () => socket });
  return requestServer({
    agent,
    host,
    port,
    method,
    path: url,
    setHost: false,
    headers: [
      "Host",
      host,
      ...headersWith(rawHeaders, secrets),
      "Connection",
      "close",
    ] as unknown as Record<string, string>,
  });
}

function passReply(
  reply: IncomingMessage,
  response: ServerResponse,
  gate: Gate,
): void {
  response.writeHead(
    reply.statusCode ?? 502,
    // Not its message, in which the parser accepts characters that writeHead() does not.
    forwardedHeaders(reply.rawHeaders) as unknown as Record<string, string>,
  );
  // Under Deno 2.9.5, a reply without a body would never be finished after it.
  if (!isEmpty(reply, response.req.method)) response.flushHeaders();
  reply.on("data", (chunk) => {
    if (response.write(chunk)) return;
    reply.pause();
    gate.hold();
  });
  response.on("drain", () => {
    gate.release();
    reply.resume();
  });
  reply.on("end", () => response.end());
  // Incomplete, which the client must notice.
  reply.on("error", () => response.destroy());
}

function isEmpty(
  { statusCode = 0, headers }: IncomingMessage,
  method: string | undefined,
): boolean {
  return method === "HEAD" || [204, 304].includes(statusCode) ||
    headers["content-length"] === "0";
}

function secure(
  socket: Socket,
  host: string,
  ca: string | undefined,
): Promise<{ socket: Socket; gate: Gate }> {
  return new Promise((resolve, reject) => {
    const gate = new Gate(socket).on("error", reject);
    const secured = connectTls({
      socket: gate,
      host,
      servername: host,
      ALPNProtocols: ["http/1.1"],
      ...(ca === undefined ? {} : { ca: [ca] }),
    });
    // Stays: an error without a listener would end the process.
    secured.on("error", reject);
    secured.on("close", () => reject(new Error("the connection was closed")));
    secured.once("secureConnect", () => resolve({ socket: secured, gate }));
  });
}

function refuse(
  response: ServerResponse,
  status: number,
  sentence: string,
): void {
  if (response.headersSent || response.destroyed) {
    return void response.destroy();
  }
  const body = `${sentence}\n`;
  response.writeHead(status, {
    "content-type": "text/plain; charset=utf-8",
    "content-length": String(new TextEncoder().encode(body).length),
  });
  response.end(body);
}
