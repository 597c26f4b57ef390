// Reads the host's Claude configuration, as far as a session may have it.

import { lstatSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { Buffer } from "node:buffer";
import * as v from "valibot";
import { inDirectory } from "../std/directory.ts";
import { messageOf } from "../std/errors.ts";
import { isWithin } from "../std/hostpath.ts";
import { gitIdentity } from "./git-identity.ts";
import { mayRunPrograms } from "../project/project-config.ts";
import {
  runsPrograms,
  takeMcpServers,
  type TakeOptions,
  takeSettings,
  toWorkerPaths,
} from "./inherited-settings.ts";
import type { Instance } from "../instance/instance.ts";
import { isTooComplex } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { NotPlain, readPlainFile } from "../std/plain-file.ts";

/** Inherited from the host's Claude home, besides settings and MCP servers. */
const files = ["CLAUDE.md"];
const directories = [
  "agents",
  "commands",
  "skills",
  "output-styles",
  "plugins",
];

const excluded = [".git", ".credentials.json"];

/** Limits well above a user's own files: a larger directory is something else. */
const maxFiles = 5000;
export const maxBytes = 200e6;
const maxDepth = 20;

export function isWithinLimits(
  { files, bytes }: { files: number; bytes: number },
): boolean {
  return files <= maxFiles && bytes <= maxBytes;
}

/** Limit for JSON files; the CLI's .claude.json can be large. */
export const maxJsonBytes = 16 * 1024 * 1024;

export interface InheritRequest {
  /** On the host: --claude-home, CLAUDE_HOME, or ~/.claude. */
  claudeHome: string;
  inheritHooks: boolean;
  /** Environment to read the git user with; no git user is inherited without it. */
  env?: NodeJS.ProcessEnv;
  /** Whether the session can use an ssh-agent. */
  sshAgent?: boolean;
  /**
   * A copy of the Claude home that sessions could write to, to be read instead. No links
   * are followed, and what runs programs is inherited only with `inheritHooks`.
   */
  copy?: string;
}

/** From options and environment; undefined in the parent, which cannot read host homes. */
export function inheritRequest(
  instance: Pick<Instance, "self">,
  env: NodeJS.ProcessEnv,
  options: {
    claudeHome?: unknown;
    inheritHooks?: boolean;
    sshAgent?: boolean;
  } = {},
): InheritRequest | undefined {
  if (instance.self) return undefined;
  const { claudeHome, inheritHooks = false, sshAgent = false } = options;
  const flag = claudeHome === undefined
    ? undefined
    : resolve(String(claudeHome));
  return {
    claudeHome: hostClaudeHome(env, flag),
    inheritHooks,
    env,
    sshAgent,
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
  /** Content of the files by their path in the session's Claude home. */
  files: Map<string, Buffer>;
  /** What was left out, and why. */
  left: string[];
}

/**
 * Reads what a session of a project inherits. Logs one warning for everything that cannot
 * be read.
 */
export function readHostConfig(
  { claudeHome, inheritHooks, env, copy, sshAgent = false }: InheritRequest,
  project: string,
  log: Log,
): HostConfig {
  const config: HostConfig = { files: new Map(), left: [] };
  const options = {
    ...{ claudeHome, userHome: dirname(claudeHome), inheritHooks },
    at: copy ?? claudeHome,
    isCopy: copy !== undefined,
    inheritPrograms: copy === undefined || inheritHooks,
  };
  const failed: string[] = [];
  const attempt = (name: string, take: () => void) => {
    try {
      take();
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "ENOENT") failed.push(`${name}: ${messageOf(error)}`);
    }
  };
  attempt("settings.json", () => addHostSettings(config, options));
  attempt(".claude.json", () => addHostServers(config, options));
  for (const name of files) {
    attempt(name, () => addFile(config, options, name));
  }
  for (const name of directories) {
    if (name === "plugins" && !options.inheritPrograms) continue;
    attempt(name, () => addDirectory(config, options, name));
  }
  if (env) {
    const git = gitIdentity({ env, directory: project, sshAgent });
    if (git.text) config.files.set(".gitconfig", Buffer.from(git.text));
    config.left.push(...git.left);
  }
  if (failed.length > 0) {
    log(
      `warning: Not all of ${options.at} was inherited: ${failed.join("; ")}`,
    );
  }
  return config;
}

interface Source extends TakeOptions {
  /** The Claude home to read, or its copy. */
  at: string;
  isCopy: boolean;
}

const objectSchema = v.record(v.string(), v.any());

function readHostJson(
  path: string,
  { isCopy }: Source,
): v.InferOutput<typeof objectSchema> {
  const limits = { maxBytes: maxJsonBytes, followLinks: !isCopy };
  const text = readPlainFile(path, limits).toString("utf8");
  if (isTooComplex(text)) throw new Error("it is nested too deeply");
  const parsed = v.safeParse(objectSchema, JSON.parse(text));
  if (parsed.success) return parsed.output;
  throw new Error("it is not a JSON object");
}

function addHostSettings(config: HostConfig, options: Source): void {
  const settings = readHostJson(join(options.at, "settings.json"), options);
  const { value, left } = takeSettings(settings, options);
  config.files.set("settings.json", jsonOf(value));
  for (const what of left) config.left.push(what);
}

/** From ~/.claude.json, or from .claude.json inside a CLAUDE_CONFIG_DIR. */
function addHostServers(config: HostConfig, options: Source): void {
  const within = join(options.at, ".claude.json");
  const path = options.isCopy || statSync(within, { throwIfNoEntry: false })
    ? within
    : `${options.at}.json`;
  const servers = readHostJson(path, options)["mcpServers"] ?? {};
  const { value, left } = takeMcpServers(servers, options);
  for (const what of left) config.left.push(what);
  if (Object.keys(value).length === 0) return;
  // The CLI rewrites this file, so it is only inherited once.
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

/** Follows links of the host's own home: dotfiles are often kept elsewhere. */
function addFile(config: HostConfig, options: Source, name: string): void {
  const path = join(options.at, name);
  const total = [...config.files.values()]
    .reduce((sum, { length }) => sum + length, 0);
  if (config.files.size >= maxFiles) {
    throw new LimitExceeded("too many files or too much data");
  }
  const left = maxBytes - total;
  const followLinks = !options.isCopy;
  const bytes = readPlainFile(path, { maxBytes: left, followLinks });
  if (!options.inheritPrograms && mayRunPrograms(name, bytes)) {
    config.left.push(`${name}: ${runsPrograms}`);
    return;
  }
  // Plugin lists contain paths of the Claude home.
  const json = name.endsWith(".json")
    ? toWorkerPaths(bytes.toString(), options)
    : bytes;
  config.files.set(name, Buffer.from(json));
}

/** Remaining limits of a directory walk: number of entries, and depth. */
interface Walk {
  budget: { entries: number };
  depth: number;
}

class LimitExceeded extends Error {}

/** Adds a directory recursively. Skips unreadable entries and lists them in `left`. */
function addDirectory(
  config: HostConfig,
  options: Source,
  name: string,
  walk: Walk = { budget: { entries: 4 * maxFiles }, depth: maxDepth },
): void {
  if (walk.depth === 0) throw new NotPlain("nested too deeply");
  for (const entry of namesIn(options, name, walk.budget)) {
    if (excluded.includes(entry)) continue;
    const inner = join(name, entry);
    try {
      const path = join(options.at, inner);
      const look = options.isCopy ? lstatSync : statSync;
      const stat = look(path, { throwIfNoEntry: false });
      if (stat?.isDirectory()) {
        // Avoids a loop: a link may lead back to the Claude home or above it.
        const real = realpathSync(path);
        if (isWithin(realpathSync(options.at), real)) continue;
        const { budget, depth } = walk;
        addDirectory(config, options, inner, { budget, depth: depth - 1 });
      } else if (stat) addFile(config, options, inner);
    } catch (error) {
      if (error instanceof LimitExceeded) throw error;
      config.left.push(`${inner}: it cannot be read (${messageOf(error)})`);
    }
  }
}

/** Names in a directory of the host; follows a link that the user created. */
function namesIn(
  { at, isCopy }: Source,
  name: string,
  budget: Walk["budget"],
): string[] {
  const path = join(at, name);
  const names: string[] = [];
  inDirectory(isCopy ? path : realpathSync(path), (directory) => {
    for (const { name } of directory.entries()) {
      if (--budget.entries < 0) {
        throw new LimitExceeded("too many files or too much data");
      }
      names.push(name);
    }
  });
  return names;
}
