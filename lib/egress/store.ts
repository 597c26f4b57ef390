// The rules of the egress policy in HAL9000_HOME/config/egress, which no worker can write:
// a file for the instance, one for each project and one for each session.

import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import { writeAtomic } from "../std/owned.ts";
import { readPlainFile } from "../std/plain-file.ts";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { ensureHome } from "../instance/volumes.ts";
import { type Scope, scopeSchema, type ScopeText } from "./policy.ts";
import { ruleText } from "./rules.ts";

/** Whose rules: at most one of these; none for the instance. */
export interface Whose {
  session?: string | undefined;
  project?: string | undefined;
}

const fileSchema = v.object({
  version: v.literal(1),
  /** What the file's name is derived from. */
  of: v.nullable(v.string()),
  ...scopeSchema.entries,
});

const maxBytes = 512 * 1024;

/** The rules of one level; those of a missing file are empty. Throws a `failed` Failure. */
export function readScope(
  { home }: Pick<Instance, "home">,
  whose: Whose,
): Scope {
  const path = pathOf(home, whose);
  return existsSync(path) ? readFile(path) : { rules: [] };
}

export function writeScope(
  { home, owner, prefix }: Pick<Instance, "home" | "owner" | "prefix">,
  whose: Whose,
  scope: Scope,
): void {
  ensureHome({ home, owner, prefix });
  const path = pathOf(home, whose);
  const file = {
    version: 1,
    of: whose.session ?? whose.project ?? null,
    ...scopeText(scope),
  };
  writeAtomic(path, JSON.stringify(file, null, 2) + "\n", owner);
}

/** Forgets the rules of a removed session. */
export function removeScope({ home }: Pick<Instance, "home">, whose: Whose) {
  rmSync(pathOf(home, whose), { force: true });
}

/** Gives the rules of a session to its new name. */
export function moveScope(
  instance: Pick<Instance, "home" | "owner" | "prefix">,
  from: string,
  to: string,
): void {
  const scope = readScope(instance, { session: from });
  if (!scope.preset && scope.rules.length === 0) return;
  writeScope(instance, { session: to }, scope);
  removeScope(instance, { session: from });
}

export function scopeText({ preset, rules }: Scope): ScopeText {
  return { ...(preset ? { preset } : {}), rules: rules.map(ruleText) };
}

/** The rules of all projects or sessions, by path or name; null if they cannot be read. */
export function readScopes(
  { home }: Pick<Instance, "home">,
  kind: "projects" | "sessions",
): Record<string, Scope | null> {
  const directory = join(home.egress, kind);
  const found: Record<string, Scope | null> = {};
  for (const name of existsSync(directory) ? readdirSync(directory) : []) {
    if (!name.endsWith(".json")) continue;
    try {
      const { of, preset, rules } = readFile(join(directory, name));
      if (of !== null) found[of] = { preset, rules };
    } catch {
      // The session's name is the file's; a project's stays unknown.
      found[name.slice(0, -".json".length)] = null;
    }
  }
  return found;
}

function readFile(path: string): v.InferOutput<typeof fileSchema> {
  const schema = v.pipe(v.string(), v.parseJson(), fileSchema);
  let reason: string;
  try {
    const text = readPlainFile(path, { maxBytes }).toString("utf8");
    const result = v.safeParse(schema, text);
    if (result.success) return result.output;
    reason = result.issues[0].message;
  } catch (error) {
    reason = error instanceof Error ? error.message : String(error);
  }
  throw new Failure("failed", `Cannot read ${path}: ${reason}`, {
    hint: "Correct the file, or remove it: its rules are lost then.",
  });
}

function pathOf(home: HomePaths, { session, project }: Whose): string {
  if (session !== undefined) return home.egressSession(session);
  if (project !== undefined) return home.egressProject(project);
  return home.egressInstance;
}
