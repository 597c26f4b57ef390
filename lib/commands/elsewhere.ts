// Commands about sessions on other machines: they run there, and commits come and go by git.

import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import * as v from "valibot";
import type { Io } from "../cli/io.ts";
import { dashed, listOf } from "../cli/options.ts";
import {
  faultOf,
  findElsewhere,
  type RemoteSession,
  sessionsElsewhere,
} from "../hosts/elsewhere.ts";
import { fetchProject, projectOf, sendProject, usesLfs } from "../hosts/git.ts";
import { type Host, requireHost } from "../hosts/hosts.ts";
import { askHost, claudyThere, usesHosts } from "../hosts/remote.ts";
import type { Instance } from "../instance/instance.ts";
import { openHome } from "../instance/open.ts";
import { readSession } from "../instance/session-record.ts";
import { sessionName } from "../project/project.ts";
import { NoSuchSession } from "../session/find.ts";
import { Failure } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import { checkWorkerName } from "../worker/name.ts";
import { fetchPrefix } from "../workspace/fetch.ts";
import { merge } from "./copies.ts";
import { runThere } from "./hosts.ts";
import type { OpenOptions } from "./open-project.ts";

/** Commands that name one session, and nothing of this machine. */
const aboutOne = [
  ...["attach", "stop", "exec", "send", "logs", "sessions", "fork", "diff"],
  ...["fetch", "merge", "pull", "usage", "budget", "egress", "ports"],
];

/** If an error says that a session is not here, runs the command where it is. */
export async function runElsewhere(
  io: Io,
  words: string[],
  error: unknown,
): Promise<number | undefined> {
  const [command = ""] = words;
  if (!(error instanceof NoSuchSession) || !aboutOne.includes(command)) {
    return undefined;
  }
  const { word } = error;
  const instance = await openHome(io.env, io.log);
  const found = await findElsewhere(instance, word, io.env);
  if (!found) return undefined;
  const { host, session } = found;
  const { name } = session;
  const isRemoval = command === "sessions" && words[1] === "rm";
  if (isRemoval && word !== name) {
    throw new Failure("unsafe", `On another machine, rm needs the whole name`, {
      hint:
        `For the session on host "${host.name}": claudy sessions rm ${name}`,
    });
  }
  // What it means there may be another session.
  const end = words.indexOf("--");
  const named = words.map((each, at) =>
    each === word && (end === -1 || at < end) ? name : each
  );
  io.log(`On host "${host.name}": ${name}`);
  const run = async () =>
    await runThere(io, host, named, {
      input: ["exec", "send"].includes(command),
    });
  const known = projectOf(instance, host, session.project);
  if (isRemoval && !words.includes("--force") && known !== undefined) {
    // There, what was fetched counts as safe.
    await fetchProject(host, located(session, known), io.env);
  }
  if (command === "merge") {
    return await mergeFrom(io, host, required(session, known), named);
  }
  if (command === "pull") {
    await sendProject(
      instance,
      host,
      required(session, known).project,
      io.env,
    );
  }
  if (command !== "fetch") return await run();
  const sent = required(session, known);
  const code = await run();
  if (code === 0) await fetchProject(host, sent, io.env);
  return code;
}

const located = (
  { name: session, project: repository }: RemoteSession,
  project: string,
) => ({ session, repository, project });

type Sent = ReturnType<typeof located>;

function required(session: RemoteSession, known: string | undefined): Sent {
  if (known !== undefined) return located(session, known);
  throw new Failure(
    "usage",
    `Session "${session.name}" was not opened from here`,
    { hint: "Its commits are in its project on that machine." },
  );
}

/** Fetching may take long; the connection says whether the machine is there. */
const fetchMs = 3_600_000;

async function mergeFrom(
  io: Io,
  host: Host,
  sent: Sent,
  words: string[],
): Promise<number> {
  // fetch has all options of merge.
  const argv = ["fetch", ...words.slice(1), "--json"];
  const reply = await askHost(host, claudyThere(host, argv), {
    env: io.env,
    timeoutMs: fetchMs,
  });
  if (reply.exitCode !== 0) throw faultOf(reply.stderr);
  const ref = v.nullable(
    v.pipe(v.string(), v.startsWith(fetchPrefix(sent.session))),
  );
  const schema = v.object({ head: ref, changes: ref });
  const fetched = parseJson(schema, reply.stdout);
  if (!fetched) throw new Failure("failed", "Its answer cannot be read");
  await fetchProject(host, sent, io.env);
  const merged = fetched.changes ?? fetched.head;
  if (merged === null) {
    throw new Failure("notFound", `Session "${sent.session}" has no commit`);
  }
  return await merge(sent.project, merged, io.env);
}

/** Options that mean the same there. Others are about files or programs of this machine. */
const passedOn = [
  "detach",
  "json",
  "new",
  "permissionMode",
  "profile",
  "build",
  "mcp",
  "network",
  "caches",
  "requireLimits",
  "trustProject",
  "yes",
];

/** Opens the session of a project on another machine. */
export async function openOnHost(
  io: Io,
  { directory, others, options }: {
    directory: string;
    others: string[];
    options: OpenOptions;
  },
): Promise<number> {
  const argv = wordsOf(others, options);
  if (!usesHosts(io.env)) {
    throw new Failure("usage", "--on has no effect: HAL9000_HOSTS is off");
  }
  const instance = await openHome(io.env, io.log);
  const host = requireHost(instance, String(options.on));
  claudyThere(host, []); // throws if the host does not have this program
  const path = projectAt(resolve(io.cwd(), directory));
  const name = options.name === undefined
    ? `${sessionName(path)}-${host.name}`
    : checkWorkerName(options.name, instance.names);
  const there = await sessionThere(io, instance, { host, name, path });
  if (!there && usesLfs(path)) {
    io.log("Content of Git LFS is not sent: the session gets its pointers");
  }
  const repository = there?.project ??
    await sendProject(instance, host, path, io.env);
  const rest = options["--"] ?? [];
  return await runThere(io, host, [
    ...["--clone", "--allow-any-path", "--name", name, ...argv, repository],
    ...(rest.length > 0 ? ["--", ...rest] : []),
  ]);
}

/** The options for there. Throws a `usage` Failure for one that has no meaning there. */
function wordsOf(others: string[], options: OpenOptions): string[] {
  if (others.length > 0) {
    throw new Failure("usage", `Expected one directory, got also ${others}`);
  }
  return Object.entries(options).flatMap(([option, value]) => {
    // Short names come with the long ones.
    const isOwn = ["on", "name", "--", "verbose"].includes(option) ||
      option.length === 1;
    // cac sets options that can be negated.
    const isDefault = value === undefined ||
      (["build", "mcp"].includes(option) && value === true);
    const isEmpty = Array.isArray(value) && value.length === 0;
    if (isOwn || isDefault || isEmpty || option === "clone") return [];
    if (!passedOn.includes(option)) {
      throw new Failure("usage", `--on does not take ${dashed(option)}`);
    }
    if (value === true) return [dashed(option)];
    if (value === false) return [dashed(option).replace(/^--/, "--no-")];
    return listOf(value).flatMap((word) => [dashed(option), word]);
  });
}

function projectAt(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    throw new Failure("notFound", `There is no directory ${path}`);
  }
}

/** The session, if it is there already. Throws a `busy` Failure if the name is taken. */
async function sessionThere(
  io: Io,
  instance: Instance,
  { host, name, path }: { host: Host; name: string; path: string },
): Promise<RemoteSession | undefined> {
  const taken = (where: string) =>
    new Failure("busy", `There is a session "${name}" ${where}`, {
      hint: "Choose another --name.",
    });
  if (readSession(instance, name)) throw taken("on this machine");
  const all = await sessionsElsewhere(instance, io.env);
  const own = all.find((one) => one.host === host.name);
  if (own?.fault) throw own.error;
  const other = all.find((one) =>
    one.host !== host.name && one.sessions.some((one) => one.name === name)
  );
  if (other) throw taken(`on host "${other.host}"`);
  const found = own?.sessions.find((one) => one.name === name);
  if (!found || projectOf(instance, host, found.project) === path) return found;
  throw taken(`on host "${host.name}", of another project`);
}
