// Changes config/mcp.json: creates it, adds and removes servers, and imports
// servers from the host's Claude configuration.

import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { Failure, messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { isLocalUrl } from "../std/local-url.ts";
import type { Log } from "../std/log.ts";
import { writeAtomic } from "../std/owned.ts";
import {
  checkServer,
  checkServers,
  defaultServers,
  findCommand,
  parseFile,
  readServers,
} from "../mcp/config.ts";
import type { Host } from "./gateway-process.ts";

const claudeServers = v.optional(
  v.record(v.string(), v.record(v.string(), v.unknown())),
  {},
);

const claudeSchema = v.object({
  mcpServers: claudeServers,
  projects: v.optional(
    v.record(v.string(), v.object({ mcpServers: claudeServers })),
    {},
  ),
});

type Home = Pick<Instance, "home" | "owner" | "settings">;

/**
 * Writes config/mcp.json with the default servers whose commands are installed.
 * Returns false if the file exists already.
 */
export function ensureConfig(
  instance: Home,
  { checkout, env }: Host,
  log: Log,
): boolean {
  const { home, settings } = instance;
  if (existsSync(home.mcpConfig)) return false;
  const servers = Object.fromEntries(
    Object.entries(defaultServers(home, settings)).filter(([name, server]) => {
      const found = findCommand(server.command ?? "", checkout, env);
      if (!found) {
        log(`${name} is left out: command not found: ${server.command}`);
      }
      return found !== undefined;
    }),
  );
  writeConfig(instance, { mcpServers: servers });
  return true;
}

/** Throws a `usage` Failure, and writes nothing, if the result is invalid. */
export function changeServers(
  instance: Home,
  how: (servers: Record<string, unknown>) => Record<string, unknown>,
): void {
  const config = parseFile(instance.home.mcpConfig);
  const mcpServers = how(config.mcpServers);
  checkServers(mcpServers, instance.settings); // e.g. two servers on one port
  writeConfig(instance, { ...config, mcpServers });
}

function writeConfig({ home, owner }: Home, config: object): void {
  writeAtomic(home.mcpConfig, `${JSON.stringify(config, null, 2)}\n`, owner);
}

/** Above the ports of the default servers. */
const firstPort = 3010;

export function freePort(instance: Home, taken: number[] = []): number {
  const { home, settings } = instance;
  const servers = readServers(home, settings);
  const used = [...servers.values()].map(({ port }) => port);
  let port = firstPort;
  while (used.includes(port) || taken.includes(port)) port++;
  return port;
}

/** User-scoped servers of the host's Claude, and why some cannot be imported. */
export function importableServers(
  instance: Home,
  env: NodeJS.ProcessEnv,
): { servers: Record<string, unknown>; left: string[] } {
  const servers: Record<string, unknown> = {};
  const { userScoped, projectScoped } = readClaude(env);
  const left = projectScoped.map(([name, project]) =>
    `${name}: only configured for ${project} (use: claude mcp add --scope user)`
  );
  const present = readServers(instance.home, instance.settings);
  const ports: number[] = [];
  for (const [name, entry] of Object.entries(userScoped)) {
    const why = present.has(name)
      ? "a server of this name exists"
      : whyNotImported(entry);
    if (why) {
      left.push(`${name}: ${why}`);
      continue;
    }
    const port = freePort(instance, ports);
    const { command, args = [], env = {}, url, headers = {} } = entry;
    const server = command === undefined
      ? { url, headers, port }
      : { command, args, env, port };
    try {
      checkServer(name, server, "Claude's configuration");
    } catch (error) {
      left.push(messageOf(error));
      continue;
    }
    ports.push(port);
    servers[name] = server;
  }
  return { servers, left };
}

interface ClaudeEntry {
  type?: unknown;
  command?: unknown;
  args?: unknown;
  env?: unknown;
  url?: unknown;
  headers?: unknown;
}

/** Remote servers need no gateway: sessions inherit them. */
function whyNotImported(
  { type, command, url }: ClaudeEntry,
): string | undefined {
  if (type !== undefined && type !== "stdio" && type !== "http") {
    return `unsupported transport: ${type}`;
  }
  if (command !== undefined) return undefined;
  return isLocalUrl(String(url))
    ? undefined
    : "not on this host: sessions use it without the gateway";
}

interface ClaudeServers {
  /** User scope, for all projects. */
  userScoped: Record<string, ClaudeEntry>;
  /** Names of project-scoped servers, with their project's path. */
  projectScoped: [name: string, project: string][];
}

function readClaude(env: NodeJS.ProcessEnv): ClaudeServers {
  const claudeHome = env["CLAUDE_HOME"] ||
    join(env["HOME"] || homedir(), ".claude");
  const places = [join(claudeHome, ".claude.json"), `${claudeHome}.json`];
  const path = places.find((path) => existsSync(path));
  if (path === undefined) {
    throw new Failure("notFound", `File not found: ${places.join(" or ")}`, {
      hint: "Set CLAUDE_HOME to where Claude's configuration is.",
    });
  }
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Failure("usage", `Cannot import ${path}: it is not JSON`, {
      cause: error,
      hint: "Correct it: Claude itself cannot read it either.",
    });
  }
  const parsed = v.safeParse(claudeSchema, json);
  if (!parsed.success) {
    throw new Failure("usage", `${path}: invalid mcpServers`);
  }
  const { mcpServers, projects } = parsed.output;
  return {
    userScoped: mcpServers,
    projectScoped: Object.entries(projects).flatMap((
      [project, { mcpServers }],
    ) => Object.keys(mcpServers).map((name) => [name, project])),
  };
}
