// Secrets of a worker: files mounted at /run/secrets. Their values do not appear in
// `docker inspect`.

import { randomBytes } from "node:crypto";
import { readFileSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { Failure, type FailureKind } from "../std/errors.ts";
import { holding, type HostView } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import { ensureDirectory, type Owner, writeAtomic } from "../std/owned.ts";

export interface Secret {
  name: string;
  value: string | Uint8Array;
}

const failureKinds: Record<string, FailureKind> = {
  ENOENT: "notFound",
  EISDIR: "usage",
};

/** Reads all secrets; throws a `usage` Failure if a name is given twice. */
export function readSecrets(
  texts: string[],
  env: NodeJS.ProcessEnv,
  host: HostView,
  cwd: string,
): Secret[] {
  const secrets = texts.map((text) => readSecret(text, env, host, cwd));
  const names = secrets.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice === undefined) return secrets;
  throw new Failure("usage", `Secret ${twice} is given twice`, {
    hint: `Pass it once: --secret ${twice}=FILE`,
  });
}

/**
 * Reads `NAME=FILE`, or `NAME` from the caller's variable of that name. Errors never
 * contain the value or a part of it.
 */
export function readSecret(
  text: string,
  env: NodeJS.ProcessEnv,
  host: HostView,
  cwd: string,
): Secret {
  const [name = "", ...rest] = text.split("=");
  if (!/^[A-Za-z_]\w*$/.test(name)) {
    throw new Failure("usage", "--secret must be NAME or NAME=FILE", {
      hint: "Use letters, digits and underscores in NAME, with no digit first.",
    });
  }
  const file = rest.join("=");
  if (rest.length === 0) {
    const value = env[name];
    if (value) return { name, value };
    throw new Failure("usage", `Secret ${name} is not set in the environment`, {
      hint: `Set it, or read it from a file: --secret ${name}=FILE`,
    });
  }
  try {
    // Opened by descriptor: the file could be replaced by a link in the meantime.
    const value = holding(
      resolve(cwd, file),
      host,
      ({ at }) => readFileSync(at),
    );
    if (value) return { name, value };
    throw Object.assign(new Error("not visible"), { code: "ENOENT" });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure(
      failureKinds[code ?? ""] ?? "failed",
      `Cannot read the file of secret ${name}`,
      {
        cause: error,
        hint: "--secret NAME=FILE reads the value from FILE.",
      },
    );
  }
}

/**
 * Writes the secrets to files that only the worker's user can read; returns the name of
 * their directory, which is unique even if worker names are reused.
 */
export function keepSecrets(
  { home, owner }: Pick<Instance, "home" | "owner">,
  worker: string,
  secrets: Secret[],
  user: Owner,
): string {
  const name = `${worker}-${randomBytes(4).toString("hex")}`;
  const directory = home.workerSecrets(name);
  ensureDirectory(dirname(directory), 0o700, owner);
  try {
    ensureDirectory(directory, 0o700, user);
    for (const { name, value } of secrets) {
      writeAtomic(join(directory, name), value, user, 0o400);
    }
  } catch (error) {
    forgetSecrets({ home }, name);
    throw error;
  }
  return name;
}

export function forgetSecrets(
  { home }: Pick<Instance, "home">,
  directory: string | null,
): void {
  if (directory === null) return;
  rmSync(home.workerSecrets(directory), { recursive: true, force: true });
}
