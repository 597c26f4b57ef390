// Finds sessions by what users type: a name, a unique part of one, a project's path, or a
// part of the name of its directory.

import { realpathSync } from "node:fs";
import { basename, resolve } from "node:path";
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

/** No session here has the name; one on another machine may. */
export class NoSuchSession extends Failure {
  readonly word: string;

  constructor(word: string, hint: string, what = "session") {
    super("notFound", `There is no ${what} "${word}"`, { hint });
    this.word = word;
  }
}

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
  const having = (part: (session: SessionRecord) => string) =>
    isPath ? [] : all.filter((session) => part(session).includes(word));
  const searches = [
    // Default sessions, in directories of exactly this name.
    () =>
      all.filter((session) =>
        basename(session.project) === word && isDefault(session)
      ),
    () => having(({ name }) => name),
    () => ofProject(instance, all, word, cwd),
    // A directory's name may have letters that names of sessions do not have.
    () => having(({ project }) => basename(project)),
  ];
  const found = firstNonEmpty(searches);
  const [session, ...others] = found;
  if (!session) {
    if (isPath) {
      throw new Failure(
        "notFound",
        `There is no session of ${resolve(cwd, word)}`,
        { hint: `Open one: claudy ${word}. See the sessions: claudy ls` },
      );
    }
    throw new NoSuchSession(
      word,
      `${didYouMean(word, all.map(({ name }) => name))}` +
        "See the sessions: claudy ls",
    );
  }
  if (others.length === 0) return session;
  const names = found.map(({ name, project }) => `${name} (${project})`).sort();
  throw new Failure(
    "usage",
    `"${word}" matches several sessions: ${names.join(", ")}`,
    { hint: "Type more of the name, or the path of the project." },
  );
}

function firstNonEmpty<Item>(searches: (() => Item[])[]): Item[] {
  for (const search of searches) {
    const found = search();
    if (found.length > 0) return found;
  }
  return [];
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
  const defaults = found.filter(isDefault);
  return defaults.length > 0 ? defaults : found;
}

/** Whether the session's name is derived from its project. */
export function isDefault({ name, project }: SessionRecord): boolean {
  return [sessionName, formerSessionName]
    .some((nameOf) => nameOf(project) === name);
}

/** The path with links resolved; unchanged if the project was moved or removed. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
