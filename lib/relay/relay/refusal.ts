// Replies of the relay itself, in the form of the API's errors.
// https://docs.anthropic.com/en/api/errors

import type { ServerResponse } from "node:http";

export interface Refusal {
  status: number;
  type: string;
  message: string;
  headers?: Record<string, string>;
}

/** Thrown for a request that gets this reply. */
export class Refused extends Error {
  readonly refusal: Refusal;
  /** For the log only. */
  readonly detail: string;

  constructor(refusal: Refusal, detail = refusal.message) {
    super(refusal.message);
    this.refusal = refusal;
    this.detail = detail;
  }
}

export function refused(
  status: number,
  type: string,
  message: string,
): Refused {
  return new Refused({ status, type, message });
}

/** The worker gets no address: it may be that of the caller's gateway or proxy. */
export function unreachable(error: unknown): Refused {
  if (error instanceof Refused) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  const sentence = "HAL-9000's relay cannot reach the API";
  return new Refused({
    status: 502,
    type: "api_error",
    message: code === undefined ? sentence : `${sentence}: ${code}`,
  }, `${sentence}: ${code ?? message}`);
}

/** Does nothing but end the connection if the reply has begun. */
export function refuse(response: ServerResponse, refusal: Refusal): void {
  const { status, type, message, headers } = refusal;
  if (response.headersSent || response.destroyed) {
    return void response.destroy();
  }
  // A client that is still sending would lose the reply if the connection was closed after it.
  response.shouldKeepAlive = true;
  const error = { type, message };
  const text = JSON.stringify({ type: "error", error });
  response.writeHead(status, {
    ...headers,
    "content-type": "application/json",
    "content-length": String(new TextEncoder().encode(text).length),
  });
  response.end(text);
}
