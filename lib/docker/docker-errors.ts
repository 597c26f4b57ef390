// Explains errors of the engine. Separate from docker.ts because every command handles
// errors, but most must not wait until dockerode is loaded.

import process from "node:process";
import { endpointHint, endpointOf } from "./endpoint.ts";
import { Failure, type FailureKind, messageOf } from "../std/errors.ts";

/** HTTP status of the engine's response; undefined for other errors. */
export function statusOf(error: unknown): number | undefined {
  const { statusCode, json } = (error ?? {}) as {
    statusCode?: unknown;
    json?: { cause?: unknown } | null;
  };
  // Podman's answer is 500 if the container is removed while it is looked up.
  if (json?.cause === "no such container") return 404;
  return typeof statusCode === "number" ? statusCode : undefined;
}

/** The engine cannot be reached, for a reason that has no error code. */
export class Unreachable extends Error {
  readonly host: string;
  readonly fault: string;
  readonly hint: string | undefined;

  constructor(
    host: string,
    fault: string,
    options: { hint?: string | undefined; cause?: unknown } = {},
  ) {
    super(`the engine at ${host} is out of reach (${fault})`, {
      cause: options.cause,
    });
    this.host = host;
    this.fault = fault;
    this.hint = options.hint;
  }
}

const unreachable: Record<string, string> = {
  ENOENT: "there is no socket",
  ECONNREFUSED: "connection refused",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOTFOUND: "unknown host name",
  ETIMEDOUT: "no answer",
  EHOSTUNREACH: "no route to the host",
};

/** Why the engine cannot be reached; undefined for other errors. */
export function connectionFault(error: unknown): string | undefined {
  if (error instanceof Unreachable) return error.fault;
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  // A missing file has the same error code as a missing socket.
  const connecting = syscall === "connect" || syscall === "getaddrinfo";
  return connecting ? unreachable[code ?? ""] : undefined;
}

/** " at" the socket or host that Node could not connect to. */
function placeOf(error: unknown): string {
  if (error instanceof Unreachable) return ` at ${error.host}`;
  const { address, port, hostname } = (error ?? {}) as {
    address?: string;
    port?: number;
    hostname?: string;
  };
  const host = address ?? hostname;
  if (!host) return "";
  return port === undefined ? ` at ${host}` : ` at ${host}:${port}`;
}

/** Adds what to do about an error of the engine. */
export function withHint(error: unknown, hint: string): Error {
  return Object.assign(error as Error, { hint });
}

/** The hint of an error that has its own. */
export function hintOf(error: unknown): string | undefined {
  const { hint } = (error ?? {}) as { hint?: unknown };
  return typeof hint === "string" ? hint : undefined;
}

/** A hint for an engine that cannot be reached. */
export function unreachableHint(
  fault: string,
  env: NodeJS.ProcessEnv = process.env,
): string {
  try {
    return endpointHint(endpointOf(env).from, fault);
  } catch (error) {
    return messageOf(error); // the docker context cannot be read
  }
}

/**
 * Converts an error of the engine to a Failure. `subject` begins the message, such as
 * `Cannot start worker "x"`.
 */
export function engineFailure(error: unknown, subject: string): Failure {
  if (error instanceof Failure) return error;
  const fault = connectionFault(error);
  if (fault !== undefined) {
    return new Failure(
      "engine",
      `${subject}: the engine${placeOf(error)} is out of reach (${fault})`,
      {
        cause: error,
        hint: hintOf(error) ?? unreachableHint(fault),
      },
    );
  }
  const kinds: Record<number, FailureKind> = { 404: "notFound", 409: "busy" };
  const reason = (error as { json?: { message?: string } } | undefined)?.json
    ?.message ?? messageOf(error);
  return new Failure(
    kinds[statusOf(error) ?? 0] ?? "failed",
    `${subject}: ${reason}`,
    { cause: error, hint: hintOf(error) },
  );
}
