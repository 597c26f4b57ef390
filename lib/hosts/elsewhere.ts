// The sessions of other machines: all are asked at the same time, and one that does not
// answer is shown with what it had when it last did.

import { existsSync } from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { Failure, messageOf } from "../std/errors.ts";
import { parseJson, readJson } from "../std/json.ts";
import { ensureDirectory, writeAtomic } from "../std/owned.ts";
import { todaySchema } from "../usage/status.ts";
import { type Host, readHosts } from "./hosts.ts";
import { askHost, claudyThere, usesHosts } from "./remote.ts";

/** How long a list waits for the hosts. */
const listMs = 5000;

const maxSessions = 10_000;
const maxBytes = 8 * 1024 ** 2;

const text = v.nullable(v.string());

/** What is shown of a session, of which other versions may have more. */
const sessionSchema = v.object({
  // It becomes a part of paths.
  name: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/)),
  project: v.string(),
  state: v.string(),
  waitingFor: v.optional(text, null),
  exitCode: v.optional(v.nullable(v.number()), null),
  loggedIn: v.optional(v.boolean(), true),
  attached: v.optional(v.number(), 0),
  worker: v.optional(text, null),
  born: v.optional(text, null),
  permissionMode: v.optional(text, null),
  network: v.optional(v.string(), "shared"),
  copy: v.optional(v.boolean(), false),
  oomKilledAt: v.optional(text, null),
  memoryBytes: v.optional(v.nullable(v.number()), null),
  limitEvents: v.optional(
    v.nullable(v.object({
      pidsLimit: v.nullable(v.number()),
      pidsRefused: v.number(),
      memoryReached: v.number(),
      oomKills: v.number(),
    })),
    null,
  ),
  today: v.optional(v.nullable(todaySchema), null),
  createdAt: v.string(),
  activeAt: v.string(),
});

export type RemoteSession = v.InferOutput<typeof sessionSchema>;

/** Counted first: each of millions of wrong items would be described. */
const sessionsSchema = v.pipe(
  v.custom<unknown[]>((value) =>
    Array.isArray(value) && value.length <= maxSessions
  ),
  v.array(sessionSchema),
);

const seenSchema = v.object({
  version: v.literal(1),
  seenAt: v.string(),
  sessions: sessionsSchema,
});

export interface HostSessions {
  host: string;
  /** When it answered; null for never. */
  seenAt: string | null;
  /** Why it does not answer now; null if it does. */
  fault: string | null;
  error?: unknown;
  sessions: RemoteSession[];
}

type Home = Pick<Instance, "home" | "owner">;

export async function sessionsElsewhere(
  instance: Home,
  env: NodeJS.ProcessEnv,
  timeoutMs = listMs,
): Promise<HostSessions[]> {
  if (!usesHosts(env)) return [];
  return await Promise.all(
    readHosts(instance.home).map((host) =>
      sessionsOf(instance, host, { env, timeoutMs })
    ),
  );
}

async function sessionsOf(
  instance: Home,
  host: Host,
  asking: { env: NodeJS.ProcessEnv; timeoutMs: number },
): Promise<HostSessions> {
  const { name } = host;
  try {
    const words = claudyThere(host, ["sessions", "list", "--json"]);
    // Without this, it goes on there after the deadline.
    const line = `timeout 20 ${words}`;
    const reply = await askHost(host, line, {
      ...asking,
      batch: true,
      maxBytes,
    });
    if (reply.exitCode !== 0) throw faultOf(reply.stderr);
    const sessions = parseJson(sessionsSchema, reply.stdout);
    if (!sessions) {
      throw new Failure("failed", "It has another version of this program");
    }
    const seenAt = new Date().toISOString();
    keep(instance, name, { version: 1, seenAt, sessions });
    return { host: name, seenAt, fault: null, sessions };
  } catch (error) {
    const { seenAt, sessions } = lastSeen(instance, name);
    const said = messageOf(error);
    const fault = said.startsWith("Host ") ? said : `Host "${name}": ${said}`;
    return { host: name, seenAt, fault, error, sessions };
  }
}

/** What a claudy there has printed as its error. */
export function faultOf(stderr: string): Failure {
  const line = stderr.split("\n").find((line) => line.startsWith("error: "));
  return new Failure(
    "failed",
    line?.slice("error: ".length) ?? (stderr.trim().split("\n").at(-1) ||
      "The command has failed there"),
  );
}

function keep(
  { home, owner }: Home,
  host: string,
  seen: v.InferOutput<typeof seenSchema>,
): void {
  const path = home.hostSeen(host);
  try {
    ensureDirectory(dirname(path), 0o700, owner);
    writeAtomic(path, JSON.stringify(seen), owner);
  } catch {
    // The next list has it, unless the host does not answer then.
  }
}

export function lastSeen(
  { home }: Pick<Home, "home">,
  host: string,
): { seenAt: string | null; sessions: RemoteSession[] } {
  const path = home.hostSeen(host);
  const seen = existsSync(path)
    ? readJson(path, seenSchema, 2 * maxBytes)
    : undefined;
  return seen ?? { seenAt: null, sessions: [] };
}

/**
 * The name of a host that had a session of this name when it last answered. A list of hosts
 * that is damaged keeps no session here from opening.
 */
export function hostThatHad(
  { home }: Pick<Home, "home">,
  session: string,
  env: NodeJS.ProcessEnv,
): string | undefined {
  if (!usesHosts(env)) return undefined;
  let hosts: Host[];
  try {
    hosts = readHosts(home);
  } catch {
    return undefined;
  }
  return hosts.find(({ name }) =>
    lastSeen({ home }, name).sessions.some(({ name }) => name === session)
  )?.name;
}

/**
 * The host that has the session which a word means; undefined if none has. The hosts are asked,
 * unless one had a session of exactly this name when it last answered. Throws a `usage` Failure
 * if several have one.
 */
export async function findElsewhere(
  instance: Home,
  word: string,
  env: NodeJS.ProcessEnv,
): Promise<{ host: Host; session: RemoteSession } | undefined> {
  if (!usesHosts(env)) return undefined;
  const hosts = readHosts(instance.home);
  if (hosts.length === 0) return undefined;
  const seen = hosts.map(({ name }) => ({
    host: name,
    ...lastSeen(instance, name),
  }));
  const known = sessionsIn(seen).filter(({ session }) => session.name === word);
  const found = known.length === 1
    ? known[0]
    : matching(await sessionsElsewhere(instance, env), word);
  const host = hosts.find(({ name }) => name === found?.host);
  return host && found && { host, session: found.session };
}

interface Located {
  host: string;
  session: RemoteSession;
}

function sessionsIn(
  all: Pick<HostSessions, "host" | "sessions">[],
): Located[] {
  return all.flatMap(({ host, sessions }) =>
    sessions.map((session) => ({ host, session }))
  );
}

function matching(all: HostSessions[], word: string): Located | undefined {
  const every = sessionsIn(all);
  const exact = every.filter(({ session }) => session.name === word);
  const found = exact.length > 0
    ? exact
    : every.filter(({ session }) => session.name.includes(word));
  const [one, ...others] = found;
  if (others.length === 0) return one;
  const names = found.map(({ host, session }) => `${session.name} (${host})`);
  throw new Failure(
    "usage",
    `"${word}" matches several sessions: ${names.sort().join(", ")}`,
    {
      hint: "Type more of the name, or name the host: " +
        "claudy host run HOST -- COMMAND",
    },
  );
}
