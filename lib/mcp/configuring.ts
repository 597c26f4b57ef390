// Changes of config/mcp.json: the first one, servers that come and go, and those that
// are taken over from the host's Claude.

import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { Failure, messageOf } from "../errors.ts";
import { isLocal } from "../inherited-settings.ts";
import type { Instance } from "../instance.ts";
import type { Log } from "../log.ts";
import { writeWhole } from "../owned.ts";
import {
  checkServer,
  checkServers,
  defaultServers,
  findCommand,
  readServers,
} from "./config.ts";
import type { Host } from "./gateway-process.ts";

const claudeSchema = v.object({
  mcpServers: v.optional(
    v.record(v.string(), v.record(v.string(), v.unknown())),
  ),
});

type Home = Pick<Instance, "home" | "owner" | "settings">;

/** What can be had of the default servers is written down, to be seen and changed. */
export function ensureConfig(
  instance: Home,
  { checkout, env }: Host,
  log: Log,
): void {
  const { home, settings } = instance;
  if (existsSync(home.mcpConfig)) return;
  const servers = Object.fromEntries(
    Object.entries(defaultServers(home, settings)).filter(([name, server]) => {
      const found = findCommand(server.command ?? "", checkout, env);
      if (!found) {
        log(`${name} is left out: there is no ${server.command}`);
      }
      return found !== undefined;
    }),
  );
  writeConfig(instance, servers);
}

/** Throws a `usage` Failure, and writes nothing, where that would be a fault. */
export function changeServers(
  instance: Home,
  how: (servers: Record<string, unknown>) => Record<string, unknown>,
): void {
  const text = readFileSync(instance.home.mcpConfig, "utf8");
  const servers = how(JSON.parse(text).mcpServers);
  checkServers(servers, instance.settings); // as two of one port
  writeConfig(instance, servers);
}

function writeConfig(
  { home, owner }: Home,
  mcpServers: Record<string, unknown>,
): void {
  const text = JSON.stringify({ mcpServers }, null, 2);
  writeWhole(home.mcpConfig, `${text}\n`, owner);
}

/** Behind those of the default servers. */
const firstPort = 3010;

export function freePort(instance: Home, taken: number[] = []): number {
  const { home, settings } = instance;
  const servers = readServers(home, settings);
  const used = [...servers.values()].map(({ port }) => port);
  let port = firstPort;
  while (used.includes(port) || taken.includes(port)) port++;
  return port;
}

/** What the host's Claude knows for its user, and why some of it is not for us. */
export function serversOfClaude(
  instance: Home,
  env: NodeJS.ProcessEnv,
): { servers: Record<string, unknown>; left: string[] } {
  const servers: Record<string, unknown> = {};
  const left: string[] = [];
  const present = readServers(instance.home, instance.settings);
  const ports: number[] = [];
  for (const [name, entry] of Object.entries(readClaude(env))) {
    const why = present.has(name) ? "there is one of that name" : whyNot(entry);
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
function whyNot({ type, command, url }: ClaudeEntry): string | undefined {
  if (command !== undefined) return undefined;
  if (type === "sse") return "it speaks SSE, not Streamable HTTP";
  return isLocal(String(url)) ? undefined : "it is not of this host";
}

function readClaude(env: NodeJS.ProcessEnv): Record<string, ClaudeEntry> {
  const claudeHome = env["CLAUDE_HOME"] ||
    join(env["HOME"] || homedir(), ".claude");
  const path = [join(claudeHome, ".claude.json"), `${claudeHome}.json`]
    .find((path) => existsSync(path));
  if (path === undefined) return {};
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new Failure("usage", `${path} is no JSON`, { cause: error });
  }
  const parsed = v.safeParse(claudeSchema, json);
  if (parsed.success) return parsed.output.mcpServers ?? {};
  throw new Failure("usage", `${path}: its mcpServers is no list of servers`);
}
