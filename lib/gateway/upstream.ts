// An MCP server or an API gateway on the host that speaks HTTP itself. Requests are passed
// on; an MCP server keeps its own sessions.

import { tokenHeader } from "../mcp/identity.ts";
import { refused } from "./refused.ts";

/** Time for the server to answer a check. */
const timeoutMs = 10_000;

/** Requests up to this size are read before they are sent. */
const smallBytes = 1024 * 1024;

const hopByHopHeaders = [
  ...["host", "connection", "keep-alive", "transfer-encoding", "upgrade"],
  "content-length",
];

/** Between the worker and the gateway only. */
const gatewayHeaders = [tokenHeader];

export interface UpstreamOptions {
  url: string;
  /** Whether requests keep their path, instead of that of `url`. */
  anyPath: boolean;
  /** Headers that are added to each request. */
  headers: Record<string, string>;
  answered: (milliseconds: number) => void;
  /** Called after each request, with the error if the server does not answer. */
  started: (error: string | undefined) => void;
}

export class Upstream {
  readonly #options: UpstreamOptions;

  constructor(options: UpstreamOptions) {
    this.#options = options;
  }

  /** Checks whether the server answers at all. */
  async check(): Promise<void> {
    const late = AbortSignal.timeout(timeoutMs);
    const { url } = this.#options;
    await this.#ask(url, { method: "HEAD", signal: late }, () => false)
      .catch(() => {});
  }

  async forward(request: Request): Promise<Response> {
    const headers = new Headers(request.headers);
    for (const name of [...hopByHopHeaders, ...gatewayHeaders]) {
      headers.delete(name);
    }
    // fetch() decodes the body but keeps the header that says it is encoded.
    headers.set("accept-encoding", "identity");
    for (const [name, value] of Object.entries(this.#options.headers)) {
      headers.set(name, value);
    }
    const startedAt = performance.now();
    try {
      const response = await this.#ask(this.#urlFor(request), {
        method: request.method,
        headers,
        body: await bodyOf(request),
        signal: request.signal,
        ...{ duplex: "half" },
      }, () => request.signal.aborted);
      this.#options.answered(performance.now() - startedAt);
      return response;
    } catch {
      return refused(502, "The server on the host does not answer");
    }
  }

  #urlFor(request: Request): string {
    const { url, anyPath } = this.#options;
    if (!anyPath) return url;
    const { pathname, search } = new URL(request.url);
    // Not resolved against url: "//host" would be another host.
    return new URL(url).origin + pathname + search;
  }

  /** `hasLeft` returns whether the client has cancelled the request. */
  async #ask(
    url: string,
    init: RequestInit,
    hasLeft: () => boolean,
  ): Promise<Response> {
    const { started } = this.#options;
    try {
      const response = await fetch(url, { ...init, redirect: "manual" });
      started(undefined);
      return response;
    } catch (error) {
      const { host } = new URL(url);
      if (!hasLeft()) started(`The server at ${host} does not answer`);
      throw error;
    }
  }
}

/** Small bodies are sent with their length, others are streamed. */
async function bodyOf(
  request: Request,
): Promise<ArrayBuffer | ReadableStream | null> {
  const length = request.headers.get("content-length");
  const isSmall = length !== null && Number(length) <= smallBytes;
  return isSmall && request.body ? await request.arrayBuffer() : request.body;
}
