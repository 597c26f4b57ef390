// Sends requests to the API, or to the caller's gateway, through the caller's proxy.

import {
  Agent,
  type ClientRequest,
  request as requestHttp,
  type RequestOptions,
} from "node:http";
import { Agent as TlsAgent, request as requestHttps } from "node:https";
import type { Socket } from "node:net";
import { connect as connectTls, rootCertificates } from "node:tls";
import {
  connectToProxy,
  openTunnelThrough,
  proxyAuthorization,
} from "../../egress/proxy/through.ts";
import { realWorld } from "../../egress/proxy/world.ts";
import { upstreamFor } from "../../egress/upstream.ts";
import type { Grant } from "../grant.ts";
import { apiHost } from "../names.ts";
import type { Bounds } from "./bounds.ts";

export interface Outgoing {
  method: string;
  /** With its query. */
  path: string;
  /** Names and values in turn. */
  headers: string[];
}

/** An idle connection is closed before a server does it, which a request could meet. */
const keptIdleMs = 4000;

export class Upstreams {
  readonly #bounds: Bounds;
  readonly #plain = new Agent({ keepAlive: true, timeout: keptIdleMs });
  /** By the certificates that are trusted in addition. */
  readonly #secure = new Map<string | null, TlsAgent>();

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /** A request whose body is still to be sent. Rejects if there is no way. */
  async begin(grant: Grant, outgoing: Outgoing): Promise<ClientRequest> {
    const base = new URL(grant.baseUrl ?? `https://${apiHost}`);
    const isSecure = base.protocol === "https:";
    const port = Number(base.port) || (isSecure ? 443 : 80);
    const host = base.hostname.replace(/^\[|\]$/g, "");
    const path = base.pathname.replace(/\/$/, "") + outgoing.path;
    const { upstream } = grant;
    const via = upstreamFor(upstream, { host, port }, isSecure);
    const options: RequestOptions = {
      host,
      port,
      method: outgoing.method,
      path,
      setHost: false,
      headers: ["Host", base.host, ...outgoing.headers],
      maxHeaderSize: this.#bounds.headBytes,
    };
    if (!via) {
      return isSecure
        ? requestHttps({ ...options, agent: this.#agentFor(upstream.ca) })
        : requestHttp({ ...options, agent: this.#plain });
    }
    const { connectMs } = this.#bounds;
    const socket = await connectToProxy(realWorld, via, upstream.ca, {
      lookupMs: connectMs,
      connectMs,
    });
    if (!isSecure) {
      return requestHttp({
        ...options,
        path: `${base.origin}${path}`,
        headers: [
          ...options.headers as string[],
          ...proxyAuthorization(via),
        ],
        agent: agentOf(socket),
      });
    }
    await openTunnelThrough(socket, via, { host, port }, connectMs);
    const secured = connectTls({
      socket,
      servername: host,
      ...caOf(upstream.ca),
    });
    return requestHttp({ ...options, agent: agentOf(secured) });
  }

  #agentFor(ca: string | null): TlsAgent {
    const known = this.#secure.get(ca);
    if (known) return known;
    const agent = new TlsAgent({
      keepAlive: true,
      timeout: keptIdleMs,
      ...caOf(ca),
    });
    this.#secure.set(ca, agent);
    return agent;
  }
}

function caOf(ca: string | null): { ca?: string[] } {
  return ca === null ? {} : { ca: [...rootCertificates, ca] };
}

/** For one request over that connection. */
function agentOf(socket: Socket): Agent {
  const agent = new Agent({ keepAlive: false });
  return Object.assign(agent, { createConnection: () => socket });
}
