// Checks what the instance stores: home, credentials, records and leftovers.

import { existsSync, lstatSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { providerOf } from "../home/caller-variables.ts";
import { credentialFor } from "../home/credentials.ts";
import { lookAt } from "../std/hostpath.ts";
import { readSessions } from "../instance/session-record.ts";
import { inDirectory } from "../std/directory.ts";
import type { Instance } from "../instance/instance.ts";
import { instanceFilter } from "../instance/labels.ts";
import { readLogin } from "../home/login.ts";
import { moveName, readJournal } from "../instance/migration-journal.ts";
import { hasSharedConfig, sharedConfig } from "../migration/conversations.ts";
import { readMigrated } from "../migration/migrated.ts";
import { movedParts } from "../instance/volumes.ts";
import { foreignHome, foreignInstance } from "../instance/ownership.ts";
import { readRecords } from "../instance/record.ts";
import { mountPointsBelow } from "../instance/storage.ts";
import { span } from "../std/units.ts";
import { unwritableHome } from "../instance/volumes.ts";
import { listWorkers } from "../worker/workers.ts";
import { fail, type Finding, ok, warn } from "./findings.ts";

/** Nothing else of a foreign instance is checked: no hint may harm it. */
export async function examineOwner(instance: Instance): Promise<Finding> {
  const { prefix, home } = instance;
  const failure = foreignHome(instance) ??
    await foreignInstance(instance).catch(() => undefined);
  return failure === undefined
    ? ok(`instance "${prefix}" uses ${home.home}`)
    : fail(failure.message, failure.hint ?? "");
}

export function examineHome(
  { home, owner }: Pick<Instance, "home" | "owner">,
): Finding {
  if (!existsSync(home.home)) {
    return warn(`${home.home} does not exist yet`, "claudy up");
  }
  const stat = statSync(home.home);
  if (!stat.isDirectory()) {
    return fail(`${home.home} is not a directory`, `mv ${home.home} elsewhere`);
  }
  const unwritable = unwritableHome(home);
  if (unwritable) return fail(unwritable.message, unwritable.hint ?? "");
  const { mode } = stat;
  if ((mode & 0o077) !== 0) {
    return fail(
      `${home.home} is open to others: ${(mode & 0o777).toString(8)}`,
      `chmod 700 ${home.home}`,
    );
  }
  const foreign = readdirSync(home.home).filter((name) => {
    const stat = lstatSync(`${home.home}/${name}`, { throwIfNoEntry: false });
    return stat !== undefined && stat.uid !== owner.uid;
  });
  return foreign.length === 0
    ? ok(`${home.home}, only accessible to its owner`)
    : fail(
      `owned by other users: ${foreign.join(", ")}`,
      `chown -R ${owner.uid}:${owner.gid} ${home.home}`,
    );
}

/** Checks for an unfinished move, which the daemon refuses to start with. */
export function examineMove(instance: Instance): Finding {
  const journal = readJournal(instance);
  if (journal) {
    const { kind } = journal.state;
    const fix = kind === "migrate"
      ? "hal9000-migrate, or hal9000-migrate --abort"
      : "hal9000-rollback";
    return fail(`unfinished ${moveName[kind]}`, fix);
  }
  const former = movedParts.map(({ name }) => name)
    .filter((name) => hasEntries(join(instance.home.home, name)));
  if (hasSharedConfig(instance)) former.push(`claude/${sharedConfig}`);
  return former.length === 0 || readMigrated(instance)
    ? ok("no data is being moved")
    : warn(
      `data of version 0.5 is not in use: ${former.join(", ")}`,
      "hal9000-migrate --dry-run",
    );
}

function hasEntries(directory: string): boolean {
  return (inDirectory(directory, (opened) => {
    for (const _ of opened.entries()) return true;
    return false;
  })) ?? false;
}

/** Reports which credentials exist, never their content. */
export function examineCredentials(
  instance: Instance,
  env: NodeJS.ProcessEnv,
): Finding {
  const { home } = instance;
  const chosen = credentialFor(instance, env);
  if (chosen === undefined) {
    return warn("none: each session has to log in by itself", "claudy login");
  }
  const says = {
    provider: `${providerOf(env)} of the environment`,
    key: "a key is kept",
    gateway: "ANTHROPIC_AUTH_TOKEN of the environment",
    caller: "ANTHROPIC_API_KEY of the environment",
    token: "a token is kept",
    login: "the instance is logged in",
  }[chosen];
  if (chosen !== "login") return ok(says);
  const expiresAt = readLogin(home)?.claudeAiOauth.expiresAt ?? 0;
  const left = expiresAt - Date.now();
  return left > 0 ? ok(`${says}, refreshed within ${span(left)}`) : warn(
    `${says}, but it has expired`,
    "claudy daemon start, else claudy login",
  );
}

export async function examineRecords(instance: Instance): Promise<Finding> {
  const damaged: string[] = [];
  const records = readRecords(instance, (line) => damaged.push(line));
  if (damaged.length > 0) {
    return warn(damaged.join("; "), "none: they were moved aside");
  }
  const ids = new Set(
    (await listWorkers(instance)).map(({ id }) => id),
  );
  const stale = records.filter(({ container }) => !ids.has(container));
  return stale.length === 0
    ? ok(`${records.length} of ${ids.size} workers`)
    : warn(
      `without a worker: ${stale.map(({ worker }) => worker).join(", ")}`,
      "claudy daemon restart",
    );
}

/** A helper runs for much less than this. */
const helperMs = 60 * 60_000;

/** Containers with our label that should not exist. */
export async function examineLeftovers(instance: Instance): Promise<Finding> {
  const helpers = (await instance.docker.listContainers({
    all: true,
    filters: instanceFilter(instance.prefix, "helper"),
  })).filter(({ Created }) => Date.now() - Created * 1000 > helperMs)
    .map(({ Id }) => Id.slice(0, 12));
  if (helpers.length > 0) {
    return warn(
      `helpers that should have ended: ${helpers.join(", ")}`,
      `docker rm --force ${helpers.join(" ")}`,
    );
  }
  const workers = await listWorkers(instance);
  const recorded = new Set(
    readRecords(instance).map(({ container }) => container),
  );
  const strange = workers.filter(({ id }) => !recorded.has(id))
    .map(({ name }) => name);
  const ended = workers.filter(({ state, keep }) => state === "exited" && !keep)
    .map(({ name }) => name);
  const leaked = [...new Set([...strange, ...ended])];
  return leaked.length === 0 ? ok("none") : warn(
    `workers that have ended or have no record: ${leaked.join(", ")}`,
    `claudy stop ${leaked.join(" ")}`,
  );
}

/** Nothing should be mounted below the home: a mount there was leaked. */
export function examineMounts(
  { home, self }: Pick<Instance, "home" | "self">,
): Finding {
  if (self) return ok("not seen from inside the parent");
  const points = mountPointsBelow(home.home);
  return points.length === 0
    ? ok(`none below ${home.home}`)
    : warn(`mounted: ${points.join(", ")}`, `umount ${points.join(" ")}`);
}

/** Reports sessions whose project does not exist any more. */
export function examineProjects(
  instance: Pick<Instance, "home" | "owner" | "host">,
): Finding {
  const sessions = readSessions(instance);
  const missing = sessions.filter(({ project }) =>
    isMissing(instance, project)
  );
  const [first] = missing;
  return first === undefined
    ? ok(`those of all ${sessions.length} sessions exist`)
    : warn(
      `missing: ${
        missing.map(({ name, project }) => `${project} (${name})`).join(", ")
      }`,
      `claudy move ${first.name} DIRECTORY, or claudy sessions rm ${first.name}`,
    );
}

function isMissing({ host }: Pick<Instance, "host">, path: string): boolean {
  try {
    lookAt(path, host);
    return false; // it exists, or is not visible from here
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}
