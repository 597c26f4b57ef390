// The host's Claude configuration in a session's Claude home: copied at its first
// use, and brought up to date on demand. The host's is only ever read.

import { createHash } from "node:crypto";
import { existsSync, lstatSync, realpathSync, rmSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Buffer } from "node:buffer";
import * as v from "valibot";
import { inDirectory } from "../std/directory.ts";
import { messageOf } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import { gitConfigText } from "./git-identity.ts";
import {
  moved,
  takeMcpServers,
  type TakeOptions,
  takeSettings,
} from "./inherited-settings.ts";
import type { Instance } from "../instance/instance.ts";
import { isTooComplex, readJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import {
  ensureDirectory,
  type Owner,
  replaceFile,
  writeAtomic,
} from "../std/owned.ts";
import { NotPlain, readPlainFile } from "../std/plain-file.ts";
import { sessionHome } from "./worker-home.ts";

/** What is inherited of a Claude home, besides settings and servers. */
const files = ["CLAUDE.md"];
const directories = [
  "agents",
  "commands",
  "skills",
  "output-styles",
  "plugins",
];

const unwanted = [".git", ".credentials.json"];

/** More than a person's own files; a directory that is larger is something else. */
const maxFiles = 5000;
const maxBytes = 200e6;
const maxDepth = 20;

/** Of settings and lists of servers; the CLI's own file is larger than people write. */
const maxJsonBytes = 16 * 1024 * 1024;

export interface InheritRequest {
  /** Of the host: --claude-home, CLAUDE_HOME, or ~/.claude. */
  claudeHome: string;
  inheritHooks: boolean;
  /** Whose git user is inherited, too; nobody's where it is left out. */
  env?: NodeJS.ProcessEnv;
}

/** What was asked for; undefined in the parent, which does not see those homes. */
export function inheritRequest(
  instance: Pick<Instance, "self">,
  env: NodeJS.ProcessEnv,
  options: { claudeHome?: unknown; inheritHooks?: boolean } = {},
): InheritRequest | undefined {
  if (instance.self) return undefined;
  const { claudeHome, inheritHooks = false } = options;
  const flag = claudeHome === undefined
    ? undefined
    : resolve(String(claudeHome));
  return {
    claudeHome: hostClaudeHome(env, flag),
    inheritHooks,
    env,
  };
}

function hostClaudeHome(
  env: NodeJS.ProcessEnv,
  flag: string | undefined,
): string {
  return flag ??
    (env["CLAUDE_HOME"] || join(env["HOME"] || homedir(), ".claude"));
}

export interface HostConfig {
  /** By their path in a Claude home, as a session has them. */
  files: Map<string, Buffer>;
  /** What was left out, and why. */
  left: string[];
}

/** What a session inherits; nothing, with one warning, where it cannot be read. */
export function readHostConfig(
  { claudeHome, inheritHooks, env }: InheritRequest,
  log: Log,
): HostConfig {
  const config: HostConfig = { files: new Map(), left: [] };
  const options = { claudeHome, userHome: dirname(claudeHome), inheritHooks };
  const broken: string[] = [];
  const attempt = (name: string, take: () => void) => {
    try {
      take();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT") broken.push(`${name}: ${messageOf(error)}`);
    }
  };
  attempt("settings.json", () => takeHostSettings(config, options));
  attempt(".claude.json", () => takeHostServers(config, options));
  for (const name of files) {
    attempt(name, () => addFile(config, options, name));
  }
  for (const name of directories) {
    attempt(name, () => addDirectory(config, options, name));
  }
  const gitConfig = env && gitConfigText(env);
  if (gitConfig !== undefined) {
    config.files.set(".gitconfig", Buffer.from(gitConfig));
  }
  if (broken.length > 0) {
    log(`warning: ${claudeHome} is not inherited whole: ${broken.join("; ")}`);
  }
  return config;
}

const objectSchema = v.record(v.string(), v.any());

function readHostJson(path: string): v.InferOutput<typeof objectSchema> {
  const limits = { maxBytes: maxJsonBytes, followLinks: true };
  const text = readPlainFile(path, limits).toString("utf8");
  if (isTooComplex(text)) throw new Error("it nests too deep");
  const parsed = v.safeParse(objectSchema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  throw new Error("it is no JSON object");
}

function takeHostSettings(config: HostConfig, options: TakeOptions): void {
  const settings = readHostJson(join(options.claudeHome, "settings.json"));
  const { value, left } = takeSettings(settings, options);
  config.files.set("settings.json", jsonOf(value));
  for (const what of left) config.left.push(what);
}

/** Beside ~/.claude, or within a home that CLAUDE_CONFIG_DIR names. */
function takeHostServers(config: HostConfig, options: TakeOptions): void {
  const within = join(options.claudeHome, ".claude.json");
  const path = statSync(within, { throwIfNoEntry: false })
    ? within
    : `${options.claudeHome}.json`;
  const servers = readHostJson(path)["mcpServers"] ?? {};
  const { value, left } = takeMcpServers(servers);
  for (const what of left) config.left.push(what);
  if (Object.keys(value).length === 0) return;
  // The CLI writes this file itself: it is given once, and no more changed.
  config.files.set(
    ".claude.json",
    jsonOf({
      hasCompletedOnboarding: true,
      projects: { "/workspace": { hasTrustDialogAccepted: true } },
      mcpServers: value,
    }),
  );
}

function jsonOf(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value, null, 2) + "\n");
}

/** Follows a link: people keep their dotfiles elsewhere. */
function addFile(config: HostConfig, options: TakeOptions, name: string): void {
  const path = join(options.claudeHome, name);
  const total = [...config.files.values()]
    .reduce((sum, { length }) => sum + length, 0);
  if (config.files.size >= maxFiles) {
    throw new TooMuch("there is too much of it");
  }
  const left = maxBytes - total;
  const bytes = readPlainFile(path, { maxBytes: left, followLinks: true });
  // Plugins have paths of their Claude home in their lists.
  const json = name.endsWith(".json")
    ? moved(bytes.toString(), options)
    : bytes;
  config.files.set(name, Buffer.from(json));
}

/** What is left of a walk: entries to look at, and levels to go down. */
interface Walk {
  budget: { entries: number };
  depth: number;
}

class TooMuch extends Error {}

/** An entry that cannot be read is left out and named; the others are taken. */
function addDirectory(
  config: HostConfig,
  options: TakeOptions,
  name: string,
  walk: Walk = { budget: { entries: 4 * maxFiles }, depth: maxDepth },
): void {
  if (walk.depth === 0) throw new NotPlain("nested too deep");
  for (const entry of namesIn(join(options.claudeHome, name), walk.budget)) {
    if (unwanted.includes(entry)) continue;
    const inner = join(name, entry);
    try {
      const path = join(options.claudeHome, inner);
      const stat = statSync(path, { throwIfNoEntry: false });
      if (stat?.isDirectory()) {
        // A link may lead to the Claude home itself, and so in a circle.
        const real = realpathSync(path);
        if (isWithin(realpathSync(options.claudeHome), real)) continue;
        const { budget, depth } = walk;
        addDirectory(config, options, inner, { budget, depth: depth - 1 });
      } else if (stat) addFile(config, options, inner);
    } catch (error) {
      if (error instanceof TooMuch) throw error;
      config.left.push(`${inner}: it cannot be read (${messageOf(error)})`);
    }
  }
}

/** Through a link: it is a person's own. */
function namesIn(path: string, budget: Walk["budget"]): string[] {
  const names: string[] = [];
  inDirectory(realpathSync(path), (directory) => {
    for (const { name } of directory.entries()) {
      if (--budget.entries < 0) throw new TooMuch("there is too much of it");
      names.push(name);
    }
  });
  return names;
}

/** For a session that has no Claude home yet, and so no worker that uses it. */
export function inheritOnce(
  instance: Home,
  session: string,
  project: Owner,
  request: InheritRequest | undefined,
  log: Log,
): void {
  const { home } = instance;
  const isNew = !existsSync(join(home.home, sessionHome(session)));
  if (!request || !isNew) return;
  const config = readHostConfig(request, log);
  inherit(instance, session, project, config);
  if (config.left.length > 0) {
    log(`Not inherited from ${request.claudeHome}: ${config.left.join("; ")}`);
  }
}

/** For a worker that is there for one answer, and has begun nothing yet. */
export function inheritForOnce(
  claudeHome: string,
  project: Owner,
  request: InheritRequest | undefined,
  log: Log,
): void {
  if (!request) return;
  for (const [name, bytes] of readHostConfig(request, log).files) {
    layFile(claudeHome, name, bytes, project);
  }
}

const recordSchema = v.object({
  version: v.literal(1),
  /** SHA-256 of each file as the session was given it. */
  files: v.record(v.string(), v.string()),
});

type Home = Pick<Instance, "home" | "owner">;

export interface Inherited {
  written: string[];
  removed: string[];
  /** Changed by the session since it was given them. */
  kept: string[];
}

/**
 * Brings a Claude home up to what the host has now. What the session has changed
 * or removed is left as it is. No worker may use the home meanwhile: a link that
 * is laid at the right moment would be followed.
 */
export function inherit(
  { home, owner }: Home,
  session: string,
  project: Owner,
  config: HostConfig,
): Inherited {
  const claudeHome = join(home.home, sessionHome(session));
  const given = readGiven(home.inherited(session));
  const result: Inherited = { written: [], removed: [], kept: [] };
  // What was given, and what the session has made of it.
  const budget = { bytes: 2 * maxBytes };
  const next: Record<string, string> = {};
  ensureDirectory(claudeHome, 0o700, project);
  for (const [name, bytes] of config.files) {
    const digest = digestOf(bytes);
    const present = digestAt(claudeHome, name, budget);
    const before = given[name];
    // New on both sides, or as it was given.
    if (present !== undefined ? present !== before : before !== undefined) {
      if (present !== digest) result.kept.push(name);
      if (before !== undefined) next[name] = before;
      continue;
    }
    next[name] = digest;
    if (present === digest) continue;
    layFile(claudeHome, name, bytes, project);
    result.written.push(name);
  }
  for (const [name, before] of Object.entries(given)) {
    if (
      config.files.has(name) || digestAt(claudeHome, name, budget) !== before
    ) {
      continue;
    }
    rmSync(join(claudeHome, name), { force: true });
    result.removed.push(name);
  }
  const record = { version: 1, files: next };
  writeAtomic(home.inherited(session), JSON.stringify(record), owner);
  return result;
}

function readGiven(path: string): Record<string, string> {
  // Nothing was given yet, or it is unknown what.
  return readJson(path, recordSchema, maxJsonBytes)?.files ?? {};
}

function digestOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/**
 * Of a plain file below plain directories; undefined where none is there. What is
 * something else, or larger than what may be inherited, is the session's own.
 */
function digestAt(
  claudeHome: string,
  name: string,
  budget: { bytes: number },
): string | undefined {
  let path = claudeHome;
  for (const part of name.split("/")) {
    path = join(path, part);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (!stat) return undefined;
    if (stat.isSymbolicLink()) return "a link";
  }
  try {
    const bytes = readPlainFile(path, { maxBytes: budget.bytes });
    budget.bytes -= bytes.length;
    return digestOf(bytes);
  } catch (error) {
    if (error instanceof NotPlain) return error.message;
    throw error;
  }
}

function layFile(
  claudeHome: string,
  name: string,
  bytes: Buffer,
  owner: Owner,
): void {
  let path = claudeHome;
  for (const part of name.split("/").slice(0, -1)) {
    path = join(path, part);
    ensureDirectory(path, 0o700, owner);
  }
  replaceFile(join(claudeHome, name), bytes, owner, { sync: false });
}
