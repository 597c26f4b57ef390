// Takes over the sessions of version 0.5: registers them, and turns their directories into
// Claude homes with their part of the shared Claude home.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { readSmallFile } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { detectProfile } from "../project/profile.ts";
import {
  readSession,
  readSessions,
  writeSession,
} from "../instance/session-record.ts";
import {
  hasSharedConfig,
  type SessionProject,
  takeConversations,
} from "./conversations.ts";
import type { Move } from "./move.ts";
import { isFormer, keepForms, recordHomes } from "./session-homes.ts";
import { inheritShared } from "./shared-config.ts";

const metadataFile = ".claudy-session.json";

/** File format: https://github.com/Hellblazer/hal-9000, claudy 0.5, init_session */
const metadataSchema = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({
    name: v.string(),
    profile: v.optional(v.string()),
    project_dir: v.pipe(v.string(), v.startsWith("/")),
    created_at: v.pipe(
      v.string(),
      v.check((text) => !Number.isNaN(Date.parse(text)), "must be a time"),
    ),
    container_image: v.optional(v.string()),
  }),
);

export interface FoundSession {
  name: string;
  project: string;
  createdAt: string;
  profile: string | undefined;
}

/** Sessions that can be opened; logs the others, which stay as they are. */
export function findSessions(
  { home, host }: Pick<Instance, "home" | "host">,
  log: Log,
): FoundSession[] {
  if (!existsSync(home.claude)) return [];
  return readdirSync(home.claude).flatMap((name) => {
    const path = join(home.claude, name, metadataFile);
    if (!existsSync(path)) return [];
    // Names of workers and of their files: session-record.ts.
    if (!/^[a-zA-Z][\w.-]{1,62}$/.test(name)) {
      log(
        `warning: session "${name}" is not imported: invalid name for a worker`,
      );
      return [];
    }
    const parsed = v.safeParse(metadataSchema, readSmallFile(path));
    if (!parsed.success) {
      log(`warning: ${path} is damaged; the session is not imported`);
      return [];
    }
    const { project_dir: project, created_at, profile } = parsed.output;
    return [{
      name,
      project,
      createdAt: new Date(created_at).toISOString(),
      // Store only a profile that differs from the detected one.
      profile: profile === detectProfile(project, host) ? undefined : profile,
    }];
  });
}

/** Sessions with their projects; a record is preferred, as no worker can write it. */
export function projectsOf(
  instance: Pick<Instance, "home" | "owner">,
  found: FoundSession[],
): SessionProject[] {
  const projects = new Map(
    [...found, ...readSessions(instance)].map((
      { name, project },
    ) => [name, project]),
  );
  return [...projects].map(([name, project]) => ({ name, project }))
    .filter(({ name }) => existsSync(join(instance.home.claude, name)));
}

export interface TakenSessions {
  /** Number of sessions that were not registered before. */
  registered: number;
  /** Number of conversations that were copied. */
  conversations: number;
  /** What stays only in the shared Claude home, and why. */
  left: string[];
}

/** Takes the sessions over, with their conversations and settings. Idempotent. */
export async function takeSessions(
  move: Move,
  env: NodeJS.ProcessEnv,
): Promise<TakenSessions> {
  const { instance, track: { log } } = move;
  const found = findSessions(instance, log);
  const taken: TakenSessions = { registered: 0, conversations: 0, left: [] };
  if (hasSharedConfig(instance)) {
    const former = found.map(({ name }) => name)
      .filter((name) => isFormer(instance, name));
    await keepForms(move, former);
    const inherited = await inheritShared(move, former, env);
    const sessions = projectsOf(instance, found);
    const { taken: count, left } = await takeConversations(move, sessions);
    await recordHomes(move, former);
    taken.conversations = count;
    taken.left = [...inherited, ...left];
  }
  taken.registered = registerSessions(instance, found, log);
  return taken;
}

function registerSessions(
  instance: Instance,
  found: FoundSession[],
  log: Log,
): number {
  const unknown = found.filter(({ name }) => !readSession(instance, name, log));
  for (const session of unknown) {
    const usedAt = session.createdAt;
    writeSession(instance, { version: 1, ...session, usedAt });
  }
  return unknown.length;
}
