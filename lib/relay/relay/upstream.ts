// Sends requests to the API, or to the caller's gateway, through the caller's proxy. Each
// request has a connection of its own: under Deno 2.9.5, a request whose body comes later
// hangs on a TLS connection that was used before.

import { createHash } from "node:crypto";
import { Agent, type ClientRequest, request as requestHttp } from "node:http";
import { isIP, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import {
  connectToProxy,
  openTunnelThrough,
  orDestroyed,
  proxyAuthorization,
} from "../../egress/proxy/through.ts";
import { connectFirst, realWorld, within } from "../../egress/proxy/world.ts";
import { upstreamFor } from "../../egress/upstream.ts";
import type { Grant } from "../grant.ts";
import { apiHost } from "../names.ts";
import type { Bounds } from "./bounds.ts";
import { Gate } from "../../std/tls-gate.ts";
import { Spares } from "./spares.ts";

export interface Outgoing {
  method: string;
  /** With its query. */
  path: string;
  /** Names and values in turn. */
  headers: string[];
}

/** Where a grant's requests go. */
interface Place {
  base: URL;
  host: string;
  port: number;
  isSecure: boolean;
  /** The caller's proxy. */
  via: URL | undefined;
  ca: string | null;
  /** The same for grants with the same place. */
  key: string;
}

/** A connection; with TLS, reading from it is stopped at its gate. */
interface Connection {
  socket: Socket;
  gate?: Gate;
}

export interface Begun {
  request: ClientRequest;
  gate: Gate | undefined;
}

export class Upstreams {
  readonly #bounds: Bounds;
  readonly #spares = new Spares<Connection>();
  /** Places for which the caller's certificates do not vouch. */
  readonly #ofSystem = new Set<string>();

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /** A request whose body is still to be sent. Rejects if there is no way. */
  async begin(grant: Grant, outgoing: Outgoing): Promise<Begun> {
    const { headBytes } = this.#bounds;
    const place = placeOf(grant);
    const { socket, gate } = await this.#spares.take(
      place.key,
      () => this.#connect(place),
    );
    try {
      return { request: requestOver(socket, place, outgoing, headBytes), gate };
    } catch (error) {
      socket.destroy();
      throw error;
    }
  }

  /**
   * A connection to a server that the caller's certificates or those of the system vouch
   * for. Not both at once: reading the system's takes 15 ms each time, unless they are used
   * as they are.
   */
  async #connect(place: Place): Promise<Connection> {
    const { isSecure, ca, key } = place;
    if (!isSecure || ca === null) return await this.#open(place, undefined);
    if (this.#ofSystem.has(key)) return await this.#open(place, undefined);
    try {
      return await this.#open(place, ca);
    } catch {
      const connection = await this.#open(place, undefined);
      this.#ofSystem.add(key);
      return connection;
    }
  }

  async #open(
    { host, port, isSecure, via, ca: proxyCa }: Place,
    ca: string | undefined,
  ): Promise<Connection> {
    const { connectMs } = this.#bounds;
    const lookupMs = connectMs;
    let socket: Socket;
    if (via) {
      const times = { lookupMs, connectMs };
      socket = await connectToProxy(realWorld, via, proxyCa, times);
      if (isSecure) {
        await openTunnelThrough(socket, via, { host, port }, connectMs);
      }
    } else {
      const found = isIP(host)
        ? [host]
        : await within(realWorld.lookup(host), lookupMs, "no name service");
      ({ socket } = await connectFirst(realWorld, found, port, connectMs));
    }
    socket.setNoDelay(true);
    if (!isSecure) return { socket };
    const secured = within(secure(socket, host, ca), connectMs, "TLS fails");
    return await orDestroyed(socket, secured);
  }
}

function secure(
  socket: Socket,
  host: string,
  ca: string | undefined,
): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const gate = new Gate(socket);
    const secured = connectTls({
      socket: gate,
      host,
      ...(isIP(host) ? {} : { servername: host }),
      ...(ca === undefined ? {} : { ca: [ca] }),
    });
    // Stays: an error without a listener would end the process.
    secured.on("error", reject);
    secured.once("secureConnect", () => resolve({ socket: secured, gate }));
  });
}

/** Certificates are large, so this is done once. */
const places = new WeakMap<Grant, Place>();

function placeOf(grant: Grant): Place {
  const place = places.get(grant) ?? newPlace(grant);
  places.set(grant, place);
  return place;
}

function newPlace({ baseUrl, upstream }: Grant): Place {
  const base = new URL(baseUrl ?? `https://${apiHost}`);
  const isSecure = base.protocol === "https:";
  const port = Number(base.port) || (isSecure ? 443 : 80);
  const host = base.hostname.replace(/^\[|\]$/g, "");
  const via = upstreamFor(upstream, { host, port }, isSecure);
  const { ca } = upstream;
  const key = createHash("sha256")
    .update(JSON.stringify([base.origin, via?.href, ca])).digest("hex");
  return { base, host, port, isSecure, via, ca, key };
}

function requestOver(
  socket: Socket,
  { base, host, port, isSecure, via }: Place,
  outgoing: Outgoing,
  maxHeaderSize: number,
): ClientRequest {
  const path = base.pathname.replace(/\/$/, "") + outgoing.path;
  const isAbsolute = via !== undefined && !isSecure;
  return requestHttp({
    agent: agentOf(socket),
    host,
    port,
    method: outgoing.method,
    path: isAbsolute ? base.origin + path : path,
    setHost: false,
    headers: [
      "Host",
      base.host,
      ...outgoing.headers,
      ...(isAbsolute ? proxyAuthorization(via) : []),
    ] as unknown as Record<string, string>,
    maxHeaderSize,
  });
}

/** For one request over that connection. */
function agentOf(socket: Socket): Agent {
  const agent = new Agent({ keepAlive: false });
  return Object.assign(agent, { createConnection: () => socket });
}
