// Takes settings and credentials over from the Claude home that all sessions of version 0.5
// shared. They could write to it, so nothing that runs programs is taken without being
// asked for.

import { join } from "node:path";
import * as v from "valibot";
import { credentialFor, keepCredential } from "../home/credentials.ts";
import {
  inherit,
  inheritRequest,
  isWithinLimits,
  readHostConfig,
} from "../home/inherit.ts";
import { keepLogin } from "../home/login.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { Failure } from "../std/errors.ts";
import { readJson } from "../std/json.ts";
import { ownerOf } from "../std/owned.ts";
import { hasSharedConfig, sharedHome } from "./conversations.ts";
import type { Move, MoveOptions } from "./move.ts";
import { type Mover, withMover } from "./mover-container.ts";
import { insideMover } from "./mover/places.ts";

/** What sessions inherit, see lib/home/inherit.ts. */
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
 * Calls `act` with the path of a readable copy of the named files and directories, without
 * those that are too large. Returns the names of these.
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
  const fitting = measured.filter(isWithinLimits);
  for (const { name } of fitting) {
    const from = `${sharedHome}/${name}`;
    await mover.do("replace", { from, to: `${copy}/${name}` });
  }
  // Version 0.5 ran Claude as root.
  if (fitting.length > 0) await mover.do("give", { path: copy, from: 0 });
  act(join(home.migration, copyName));
  await mover.do("remove", { path: copy });
  return measured.filter((part) => !isWithinLimits(part))
    .map(({ name }) => name);
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
  const left: string[] = [];
  const large = await withCopy(instance, lock, inheritable, (copy) => {
    const config = readHostConfig({ ...request, copy }, track.log);
    left.push(...config.left);
    for (const session of sessions) {
      const home = join(instance.home.home, sessionHome(session));
      inherit(instance, session, ownerOf(home), config);
    }
  });
  return [...left, ...large.map((name) => `${name}: it is too large`)];
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
