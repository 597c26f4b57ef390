// claudy run --clone: runs one prompt in a new copy of the project, fetches what was changed
// there into the user's repository, and removes the copy.

import { randomBytes } from "node:crypto";
import * as v from "valibot";
import type { Io } from "../cli/io.ts";
import { flagsOf } from "../cli/options.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { readSession } from "../instance/session-record.ts";
import { resolveProject, sessionName } from "../project/project.ts";
import { eventArguments } from "../session/answer.ts";
import type { Opening } from "../session/opening.ts";
import { removeSession } from "../session/session.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { HostPath } from "../std/hostpath.ts";
import { parseJson } from "../std/json.ts";
import { printable } from "../std/text.ts";
import { stopWorker } from "../worker/ending.ts";
import { fetchCopy } from "../workspace/fetch.ts";
import { repositoryOf } from "../workspace/repository.ts";
import {
  type Unfetched,
  unfetchedIn,
  unfetchedText,
} from "../workspace/unfetched.ts";
import { ask, type Asked, HeldResult } from "./ask.ts";
import { tellLeft } from "./copies.ts";
import { type OpenOptions, prepareSession } from "./open-project.ts";
import { startSettings } from "./start-options.ts";

interface Options extends Omit<OpenOptions, "name"> {
  project?: string;
  name?: unknown;
  keep?: boolean;
}

/** Returns the exit code of Claude. */
export async function runInCopy(
  io: Io,
  { prompt, format }: Asked,
  options: Options,
): Promise<number> {
  const flags = flagsOf({ ...options }, startSettings);
  const instance = await openInstance(io.env, io.log, flags);
  const project = await resolveProject(instance, {
    path: options.project ?? ".",
    cwd: io.cwd(),
    as: "project",
    allowAny: false,
  });
  requireRepository(instance, project);
  const { ready } = await prepareSession(io, instance, {
    directory: project.path,
    options: {
      ...options,
      name: String(options.name ?? newName(project)),
      "--": [
        "-p",
        ...(format === undefined ? [] : eventArguments),
        ...(options["--"] ?? []),
      ],
    },
    prompt,
    once: true,
    check: requireNew,
  });
  const { session, id, worker: name, env, command: [, ...words] } = ready;
  const hold = format === "json" || format === "stream-json"
    ? new HeldResult()
    : undefined;
  const ended: { code: number; error?: unknown } = await ask(
    io,
    instance,
    { id, name },
    { env, arguments: words, format, hold },
  ).finally(() => stopWorker(instance, { id, name }, io.log))
    .then((code) => ({ code }), (error) => ({ code: 1, error }));
  const copy = await takeOut(io, instance, session, options.keep)
    .catch((error): Taken => {
      io.log(
        `Session ${session} is kept. To fetch what it has changed: ` +
          `claudy fetch --with-changes ${session}`,
      );
      if (ended.code === 0) ended.error = error;
      else io.log(`warning: ${messageOf(error)}`);
      return { session, kept: true, branch: null, branches: [], made: null };
    });
  if (hold) {
    const result = parseJson(v.looseObject({}), hold.line ?? "{}");
    io.answerLine({ ...result, copy }, "", true);
  }
  if (ended.error !== undefined) throw ended.error;
  return ended.code;
}

/** Without one, nothing could be fetched. */
function requireRepository(instance: Instance, project: HostPath): void {
  if (repositoryOf(instance, project, false)) return;
  throw new Failure(
    "notFound",
    `Cannot run in a copy: ${project.path} is no repository`,
    { hint: `Make it one: git -C ${project.path} init` },
  );
}

/** Not used before: what was fetched from a former session has its name. */
function newName({ path }: HostPath): string {
  return `${sessionName(path).slice(0, 53)}-r${randomBytes(4).toString("hex")}`;
}

function requireNew({ session, before }: Opening): void {
  if (!before) return;
  throw new Failure("busy", `There is a session "${session}"`, {
    hint: "Choose another --name, or none.",
  });
}

/** What is added to Claude's result as `copy`. */
interface Taken {
  session: string;
  /** Whether the session is still there, with its copy. */
  kept: boolean;
  /** The reference with all changes, in the user's repository; null for none or several. */
  branch: string | null;
  /** The references that together have all changes: more than one if none has all. */
  branches: string[];
  /** What Claude has changed; null if the copy cannot be read. */
  made: Unfetched | null;
}

/** Fetches what the session has changed, then removes it if nothing would be lost. */
export async function takeOut(
  io: Pick<Io, "log">,
  instance: Instance,
  session: string,
  keep = false,
): Promise<Taken> {
  const record = readSession(instance, session);
  if (!record) {
    throw new Failure("failed", `Session "${session}" was renamed or removed`);
  }
  const { commits, changed, untracked } = await unfetchedIn(
    instance,
    record,
    io.log,
  );
  const made = { commits, changed, untracked };
  const taken: Taken = {
    session,
    kept: keep,
    branch: null,
    branches: [],
    made,
  };
  const text = unfetchedText(made);
  if (text === "") io.log("Nothing was changed in the copy");
  else {
    io.log(`Fetching from session ${session}: ${text}`);
    const request = { changes: true };
    const fetched = await fetchCopy(instance, record, request, io.log);
    tellLeft(io, fetched);
    const { tips } = fetched;
    taken.branches = tips;
    taken.branch = tips.length === 1 ? tips[0] ?? null : null;
    for (const name of tips) io.log(`Fetched as ${printable(name)}`);
    if (tips.length > 1) io.log("warning: None of these branches has all");
    const lost = unfetchedText(await unfetchedIn(instance, record, io.log));
    if (lost !== "") {
      taken.kept = true;
      io.log(`warning: Session ${session} has in its copy alone: ${lost}`);
    }
  }
  if (!taken.kept) await removeSession(instance, session, io.log);
  else {
    io.log(`Session ${session} is kept. To open it: claudy attach ${session}`);
  }
  return taken;
}
