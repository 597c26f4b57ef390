// Commands about sessions on other machines: they run there, and commits come and go by git.

import { realpathSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import * as v from "valibot";
import type { Io } from "../cli/io.ts";
import { dashed, listOf } from "../cli/options.ts";
import {
  faultOf,
  findElsewhere,
  sessionsElsewhere,
} from "../hosts/elsewhere.ts";
import {
  fetchProject,
  type HostProject,
  readHostProject,
  sendProject,
  writeHostProject,
} from "../hosts/git.ts";
import { type Host, requireHost } from "../hosts/hosts.ts";
import { askHost, claudyThere } from "../hosts/remote.ts";
import type { Instance } from "../instance/instance.ts";
import { openHome } from "../instance/open.ts";
import { readSession } from "../instance/session-record.ts";
import { sessionName } from "../project/project.ts";
import { NoSuchSession } from "../session/find.ts";
import { Failure } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import { checkWorkerName } from "../worker/name.ts";
import { merge } from "./copies.ts";
import { runThere } from "./hosts.ts";
import type { OpenOptions } from "./open-project.ts";

/** If an error says that a session is not here, runs the command where it is. */
export async function runElsewhere(
  io: Io,
  words: string[],
  error: unknown,
): Promise<number | undefined> {
  if (!(error instanceof NoSuchSession)) return undefined;
  const instance = await openHome(io.env, io.log);
  const found = await findElsewhere(instance, error.word, io.env);
  if (!found) return undefined;
  const { host, session: { name } } = found;
  const [command] = words;
  const record = readHostProject(instance, name);
  if (command === "fetch") {
    const code = await runThere(io, host, words);
    if (code === 0) await fetchProject(host, sentFrom(record, name), io.env);
    return code;
  }
  if (command === "pull") {
    await sendProject(host, sentFrom(record, name).project, io.env);
  }
  if (command === "merge") {
    return await mergeFrom(io, host, sentFrom(record, name), words);
  }
  const code = await runThere(io, host, words);
  const isRemoved = command === "sessions" && words[1] === "rm" && code === 0;
  if (isRemoved) rmSync(instance.home.hostProject(name), { force: true });
  return code;
}

function sentFrom(record: HostProject | undefined, name: string): HostProject {
  if (record) return record;
  throw new Failure("usage", `Session "${name}" was not opened from here`, {
    hint: "Its commits are in the repository of its project on that machine.",
  });
}

const fetchedSchema = v.object({
  head: v.nullable(v.string()),
  changes: v.nullable(v.string()),
});

/** Fetching may take long; the connection says whether the machine is there. */
const fetchMs = 3_600_000;

async function mergeFrom(
  io: Io,
  host: Host,
  record: HostProject,
  words: string[],
): Promise<number> {
  // fetch has all options of merge.
  const argv = ["fetch", ...words.slice(1), "--json"];
  const reply = await askHost(host, claudyThere(host, argv), {
    env: io.env,
    timeoutMs: fetchMs,
  });
  if (reply.exitCode !== 0) throw faultOf(reply.stderr);
  const fetched = parseJson(fetchedSchema, reply.stdout);
  await fetchProject(host, record, io.env);
  const ref = fetched?.changes ?? fetched?.head;
  if (!ref) {
    throw new Failure("failed", `Session "${record.session}" has no commit`);
  }
  return await merge(record.project, ref, io.env);
}

/** Options that mean the same there. Others are about files or programs of this machine. */
const passedOn = [
  "detach",
  "json",
  "new",
  "permissionMode",
  "profile",
  "mcp",
  "network",
  "requireLimits",
  "memory",
  "cpus",
  "pidsLimit",
  "yes",
];

/** Opens the session of a project on another machine. */
export async function openOnHost(
  io: Io,
  directory: string,
  options: OpenOptions,
): Promise<number> {
  const instance = await openHome(io.env, io.log);
  const host = requireHost(instance, String(options.on));
  const given = options as Record<string, unknown>;
  const path = projectAt(resolve(io.cwd(), directory));
  const name = options.name === undefined
    ? `${sessionName(path)}-${host.name}`
    : checkWorkerName(options.name, instance.names);
  const isThere = await requireFree(io, instance, { host, name, path });
  const argv = passedOn.flatMap((option) => {
    const value = given[option];
    // cac sets an option that can be negated.
    const isDefault = option === "mcp" && value === true;
    if (value === undefined || isDefault) return [];
    if (value === true) return [dashed(option)];
    if (value === false) return [dashed(option).replace(/^--/, "--no-")];
    return listOf(value).flatMap((word) => [dashed(option), word]);
  });
  const rest = options["--"] ?? [];
  const repository = isThere
    ? sentFrom(readHostProject(instance, name), name).repository
    : await sendProject(host, path, io.env);
  if (!isThere) {
    const record = {
      session: name,
      host: host.name,
      project: path,
      repository,
    };
    writeHostProject(instance, record);
  }
  return await runThere(io, host, [
    ...["--clone", "--allow-any-path", "--name", name, ...argv, repository],
    ...(rest.length > 0 ? ["--", ...rest] : []),
  ]);
}

function projectAt(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    throw new Failure("notFound", `There is no directory ${path}`);
  }
}

/** Whether the session is there already. Throws a `busy` Failure if the name is taken. */
async function requireFree(
  io: Io,
  instance: Instance,
  { host, name, path }: { host: Host; name: string; path: string },
): Promise<boolean> {
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
  if (!own?.sessions.some((one) => one.name === name)) return false;
  const record = readHostProject(instance, name);
  if (record?.host === host.name && record.project === path) return true;
  throw taken(`on host "${host.name}", of another project`);
}
