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

  constructor(refusal: Refusal) {
    super(refusal.message);
    this.refusal = refusal;
  }
}

export function refused(
  status: number,
  type: string,
  message: string,
): Refused {
  return new Refused({ status, type, message });
}

/** Without the address: it may be that of the caller's gateway. */
export function unreachable(error: unknown): Refused {
  const { code, message } = error as NodeJS.ErrnoException;
  return refused(
    502,
    "api_error",
    `HAL-9000's relay cannot reach the API: ${code ?? message}`,
  );
}

/** Does nothing but end the connection if the reply has begun. */
export function refuse(response: ServerResponse, refusal: Refusal): void {
  const { status, type, message, headers } = refusal;
  if (response.headersSent || response.destroyed) {
    return void response.destroy();
  }
  const error = { type, message };
  const text = JSON.stringify({ type: "error", error });
  response.writeHead(status, {
    ...headers,
    "content-type": "application/json",
    "content-length": String(new TextEncoder().encode(text).length),
  });
  response.end(text);
}
