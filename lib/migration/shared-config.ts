// Takes settings and credentials over from the Claude home that all sessions of version 0.5
// shared. They could write to it, so nothing that runs programs is taken without being
// asked for.

import { lstatSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { credentialFor, keepCredential } from "../home/credentials.ts";
import {
  inheritRequest,
  isWithinLimits,
  readHostConfig,
} from "../home/host-config.ts";
import { inherit } from "../home/inherit.ts";
import { keepLogin } from "../home/login.ts";
import { readSession } from "../instance/session-record.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import { readJson } from "../std/json.ts";
import { ownerOf } from "../std/owned.ts";
import { hasSharedConfig, sharedConfig, sharedHome } from "./conversations.ts";
import type { Move, MoveOptions } from "./move.ts";
import { type Mover, withMover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";

/** What sessions inherit, see lib/home/host-config.ts. */
const inheritable = [
  ...["settings.json", ".claude.json", "CLAUDE.md", "agents", "commands"],
  ...["skills", "output-styles", "plugins"],
];

const stateFile = ".claude.json";
const loginFile = ".credentials.json";

/** In HAL9000_HOME/migration. */
const copyName = "shared-config";

export const copyInMover = `${insideMover.work}/${copyName}`;

/**
 * Calls `act` with the path of a readable copy of the named files and directories. Returns
 * which are not in it, and why.
 */
async function withCopy(
  { home }: Pick<Instance, "home">,
  mover: Mover,
  names: string[],
  act: (directory: string) => void,
): Promise<string[]> {
  const copy = copyInMover;
  await mover.do("remove", { path: copy });
  const source = { at: sharedHome, parts: names };
  const measured = await mover.do("measure", source);
  // A link has no files. It may lead anywhere, and often to nothing in the mover.
  const fitting = measured.filter((part) =>
    part.files > 0 && isWithinLimits(part)
  );
  for (const { name } of fitting) {
    const from = `${sharedHome}/${name}`;
    await mover.do("replace", { from, to: `${copy}/${name}` });
  }
  // Version 0.5 ran Claude as root.
  if (fitting.length > 0) await mover.do("give", { path: copy, from: 0 });
  act(join(home.migration, copyName));
  await mover.do("remove", { path: copy });
  const large = measured.filter((part) => !isWithinLimits(part));
  const links = names.filter((name) =>
    isLink(join(home.claude, sharedConfig, name))
  );
  return [
    ...large.map(({ name }) => `${name}: it is too large`),
    ...links.map((name) => `${name}: it is a link`),
  ];
}

function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false; // it is missing, or may not be read
  }
}

/** Sessions inherit as new ones do. Returns what is not inherited, and why. */
export async function inheritShared(
  { instance, journal, lock, track }: Move,
  sessions: string[],
  env: NodeJS.ProcessEnv,
): Promise<string[]> {
  const inheritHooks = journal.state.inheritHooks ?? false;
  const request = inheritRequest(instance, env, { inheritHooks });
  if (!request || sessions.length === 0) return [];
  const left = new Set<string>();
  const missing = await withCopy(instance, lock, inheritable, (copy) => {
    for (const session of sessions) {
      const project = readSession(instance, session)?.project ?? "/";
      const config = readHostConfig({ ...request, copy }, project, track.log);
      config.left.forEach((what) => left.add(what));
      const home = join(instance.home.home, sessionHome(session));
      inherit(instance, session, ownerOf(home), config);
    }
  });
  return [...left, ...missing];
}

const stateSchema = v.looseObject({ primaryApiKey: v.optional(v.string()) });

/** As many as Claude keeps in it. */
const maxStateBytes = 16 * 1024 ** 2;

/** Takes credentials over, unless there are any. Returns the kinds of what was stored. */
export async function takeCredentials(
  { instance, track }: Pick<MoveOptions, "instance" | "track">,
): Promise<string[]> {
  if (!hasSharedConfig(instance)) return [];
  return await withMover(instance, { volumes: false }, async (lock) => {
    // Left by an interrupted run.
    await lock.do("remove", { path: copyInMover });
    if (credentialFor(instance, {}) !== undefined) return [];
    return await storeCredentials({ instance, track, lock });
  });
}

/** Stores the API key or token, and the login, for all sessions, as claudy login does. */
export async function storeCredentials(
  { instance, lock, track }: Pick<Move, "instance" | "lock" | "track">,
): Promise<string[]> {
  const kinds: string[] = [];
  await withCopy(instance, lock, [stateFile, loginFile], (copy) => {
    const path = join(copy, stateFile);
    const state = readJson(path, stateSchema, maxStateBytes);
    const key = state?.primaryApiKey ?? "";
    // Version 0.5 took tokens as well.
    const kind = key.startsWith("sk-ant-oat") ? "token" : "key";
    try {
      if (key !== "") keepCredential(instance, kind, key);
      if (key !== "") kinds.push(kind);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      track.log(
        `warning: the ${kind} of version 0.5 is not taken: it is invalid`,
      );
    }
    if (keepLogin(instance, join(copy, loginFile))) kinds.push("login");
  });
  return kinds;
}
