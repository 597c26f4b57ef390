// A server that speaks HTTP itself, on the host: what comes for it is passed on, and its
// sessions are its own.

import { tokenHeader } from "../mcp/identity.ts";
import { refused } from "./refused.ts";

/** Before it is taken for one that does not answer. */
const timeoutMs = 10_000;

/** A request that is read before it is sent. */
const smallBytes = 1024 * 1024;

const ofOneConnection = [
  ...["host", "connection", "keep-alive", "transfer-encoding", "upgrade"],
  "content-length",
];

/** Is between the worker and the gateway. */
const ofGateway = [tokenHeader];

export interface UpstreamOptions {
  url: string;
  /** Sent with each request. */
  headers: Record<string, string>;
  answered: (milliseconds: number) => void;
  /** Hears whether it is there, with what is wrong. */
  started: (error: string | undefined) => void;
}

export class Upstream {
  readonly #options: UpstreamOptions;

  constructor(options: UpstreamOptions) {
    this.#options = options;
  }

  /** Whether it answers anything at all. */
  async check(): Promise<void> {
    const late = AbortSignal.timeout(timeoutMs);
    await this.#ask({ method: "HEAD", signal: late }, () => false)
      .catch(() => {});
  }

  async passOn(request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    for (const name of [...ofOneConnection, ...ofGateway]) headers.delete(name);
    // What is fetched is decoded, and would still be called encoded.
    headers.set("accept-encoding", "identity");
    for (const [name, value] of Object.entries(this.#options.headers)) {
      headers.set(name, value);
    }
    const startedAt = performance.now();
    try {
      const response = await this.#ask({
        method: request.method,
        headers,
        body: await bodyOf(request),
        signal: request.signal,
        ...{ duplex: "half" },
      }, () => request.signal.aborted);
      this.#options.answered(performance.now() - startedAt);
      return response;
    } catch {
      return refused(502, "The MCP server does not answer");
    }
  }

  /** `hasLeft` says whether it was the client that ended it. */
  async #ask(init: RequestInit, hasLeft: () => boolean): Promise<Response> {
    const { url, started } = this.#options;
    try {
      const response = await fetch(url, { ...init, redirect: "manual" });
      started(undefined);
      return response;
    } catch (error) {
      const { host } = new URL(url);
      if (!hasLeft()) started(`The MCP server at ${host} does not answer`);
      throw error;
    }
  }
}

/** One that is small goes out with its length; any other as it comes. */
async function bodyOf(
  request: Request,
): Promise<ArrayBuffer | ReadableStream | null> {
  const length = request.headers.get("content-length");
  const isSmall = length !== null && Number(length) <= smallBytes;
  return isSmall && request.body ? await request.arrayBuffer() : request.body;
}
