// What the engine's errors mean. Apart from the engine itself: every command
// reads errors, and few starts should wait for the rest.

import process from "node:process";
import { endpointHint, endpointOf } from "./endpoint.ts";
import { Failure, type FailureKind, messageOf } from "../std/errors.ts";

/** HTTP status of an engine's answer, undefined for any other error. */
export function statusOf(error: unknown): number | undefined {
  const status = (error as { statusCode?: unknown } | undefined)?.statusCode;
  return typeof status === "number" ? status : undefined;
}

const unreachable: Record<string, string> = {
  ENOENT: "there is no socket",
  ECONNREFUSED: "nothing listens",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOTFOUND: "the host name is unknown",
  ETIMEDOUT: "no answer",
  EHOSTUNREACH: "no route to the host",
};

/** Why an engine cannot be reached, undefined when the error is another. */
export function connectionFault(error: unknown): string | undefined {
  const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
  // A file that is not there has the same code as a socket that is not.
  const connecting = syscall === "connect" || syscall === "getaddrinfo";
  return connecting ? unreachable[code ?? ""] : undefined;
}

/** What to do about an engine that is out of reach. */
export function unreachableHint(
  fault: string,
  env: NodeJS.ProcessEnv = process.env,
): string {
  try {
    return endpointHint(endpointOf(env).from, fault);
  } catch (error) {
    return messageOf(error); // the context itself cannot be read
  }
}

/**
 * What an error of the engine means to the person at the command: `subject`
 * is the start of the sentence, as in `Cannot start worker "x"`.
 */
export function engineFailure(error: unknown, subject: string): Failure {
  if (error instanceof Failure) return error;
  const fault = connectionFault(error);
  if (fault !== undefined) {
    return new Failure(
      "engine",
      `${subject}: the engine is out of reach (${fault})`,
      {
        cause: error,
        hint: unreachableHint(fault),
      },
    );
  }
  const kinds: Record<number, FailureKind> = { 404: "notFound", 409: "busy" };
  const reason = (error as { json?: { message?: string } } | undefined)?.json
    ?.message ?? messageOf(error);
  return new Failure(
    kinds[statusOf(error) ?? 0] ?? "failed",
    `${subject}: ${reason}`,
    { cause: error },
  );
}
