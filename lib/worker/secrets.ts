// Secrets of a worker: files that it sees at /run/secrets, and nobody else sees
// in what can be inspected.

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

const readFaults: Record<string, FailureKind> = {
  ENOENT: "notFound",
  EISDIR: "usage",
};

/** Reads each; throws a `usage` Failure for one that is given twice. */
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
  throw new Failure("usage", `Secret ${twice} is given twice`);
}

/**
 * Reads `NAME=FILE`, or `NAME` for the caller's variable of that name. Neither
 * the value nor a part of it is in any error.
 */
export function readSecret(
  text: string,
  env: NodeJS.ProcessEnv,
  host: HostView,
  cwd: string,
): Secret {
  const [name = "", ...rest] = text.split("=");
  if (!/^[A-Za-z_]\w*$/.test(name)) {
    throw new Failure("usage", `--secret must be NAME or NAME=FILE`, {
      hint: "A name is letters, digits and underscores, no digit first.",
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
    // Held: whoever can write its directory could replace it by a link meanwhile.
    const value = holding(
      resolve(cwd, file),
      host,
      ({ at }) => readFileSync(at),
    );
    if (value) return { name, value };
    throw Object.assign(new Error("out of sight"), { code: "ENOENT" });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new Failure(
      readFaults[code ?? ""] ?? "failed",
      `Cannot read the file of secret ${name}`,
      {
        cause: error,
        hint: "--secret NAME=FILE takes the value from the file FILE.",
      },
    );
  }
}

/**
 * Lays secrets out for a worker's user alone; gives the directory's name. No
 * other worker has the same, whatever its name.
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
  ensureDirectory(directory, 0o700, user);
  for (const { name, value } of secrets) {
    writeAtomic(join(directory, name), value, user, 0o400);
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
