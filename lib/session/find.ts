// Finds sessions by what users type: a name, a unique part of one, or a project's path.

import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { didYouMean } from "../std/nearest.ts";
import {
  readSession,
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import { formerSessionName, sessionName } from "../project/project.ts";

type Home = Pick<Instance, "home" | "owner" | "host">;

/**
 * The session that `word` means, relative to `cwd`. Throws a `notFound` Failure that
 * suggests the most similar name, and a `usage` Failure if several sessions match.
 */
export function findSession(
  instance: Home,
  word: string,
  cwd: string,
  log: Log,
): SessionRecord {
  const named = readSession(instance, word, log);
  if (named) return named;
  const all = readSessions(instance, log);
  const isPath = word.includes("/") || word === "." || word === "..";
  const parts = isPath ? [] : all.filter(({ name }) => name.includes(word));
  const found = parts.length > 0 ? parts : ofProject(instance, all, word, cwd);
  const [session, ...others] = found;
  if (!session) {
    const what = isPath ? `There is no session of` : "There is no session";
    throw new Failure("notFound", `${what} "${word}"`, {
      hint: `${didYouMean(word, all.map(({ name }) => name))}` +
        "See claudy sessions.",
    });
  }
  if (others.length === 0) return session;
  const names = found.map(({ name }) => name).sort();
  throw new Failure(
    "usage",
    `"${word}" matches several sessions: ${names.join(", ")}`,
    { hint: "Type more of the name." },
  );
}

/** The sessions of a project; only the default one, if it is among them. */
function ofProject(
  { host }: Pick<Instance, "host">,
  all: SessionRecord[],
  path: string,
  cwd: string,
): SessionRecord[] {
  const typed = resolve(cwd, path);
  const real = host.mount === "" ? realPath(typed) : typed;
  const found = all.filter(({ project }) =>
    project === typed || project === real
  );
  const defaults = found.filter(({ name, project }) =>
    name === sessionName(project) || name === formerSessionName(project)
  );
  return defaults.length > 0 ? defaults : found;
}

/** The path with links resolved; unchanged if the project was moved or removed. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
