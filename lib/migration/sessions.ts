// Registers the sessions of version 0.5; their files stay in place.

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { readSmallFile } from "../std/hostpath.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { detectProfile } from "../project/profile.ts";
import { readSession, writeSession } from "../instance/session-record.ts";

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

/** Registers the sessions. Returns how many are new. */
export function rememberSessions(instance: Instance, log: Log): number {
  const unknown = findSessions(instance, log)
    .filter(({ name }) => !readSession(instance, name, log));
  for (const session of unknown) {
    const usedAt = session.createdAt;
    writeSession(instance, { version: 1, ...session, usedAt });
  }
  return unknown.length;
}
