// Adds the host's MCP servers to a worker's Claude configuration: entries at user scope in
// its home, so that the project is not changed and no approval is needed.

import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { Failure, messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { isTooComplex } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { didYouMean } from "../std/nearest.ts";
import { type Owner, replaceFile } from "../std/owned.ts";
import { readPlainFile } from "../std/plain-file.ts";
import { askGateway } from "./client.ts";
import { readServers, type Servers } from "./config.ts";
import { tokenHeader, tokenKey, workerToken } from "./identity.ts";

/** The CLI's own file is larger than files written by hand, but below this. */
const maxBytes = 16 * 1024 * 1024;

/** A header that marks our entries, to find them later. */
const mark = "X-HAL9000-Server";

type Entry = { headers?: Record<string, unknown> } | null;

/** The configured servers; empty if there is no configuration, or it is invalid. */
export function configuredServers(
  { home, settings }: Pick<Instance, "home" | "settings">,
  log: Log,
): Servers {
  if (!existsSync(home.mcpConfig)) return new Map();
  try {
    return readServers(home, settings);
  } catch (error) {
    log(`warning: no MCP servers: ${messageOf(error)}`);
    return new Map();
  }
}

/** The servers for a session: all, none, or some by name. */
export type Choice = boolean | string[];

/** Throws a `notFound` Failure for an unknown name. */
export function checkChoice(servers: Servers, choice: Choice): void {
  if (typeof choice === "boolean") return;
  const name = choice.find((name) => !servers.has(name));
  if (name === undefined) return;
  throw new Failure("notFound", `There is no MCP server "${name}"`, {
    hint: `${didYouMean(name, [...servers.keys()])}See claudy mcp list.`,
  });
}

/** The configured servers in a choice. */
export function chosenServers(servers: Servers, choice: Choice): Servers {
  if (choice === true) return servers;
  const wanted = choice === false ? [] : choice;
  return new Map([...servers].filter(([name]) => wanted.includes(name)));
}

/** Writes the entries into a Claude home, which must not be in use by a CLI. */
export function offerServers(
  { home, owner: instanceOwner }: Pick<Instance, "home" | "owner">,
  claudeHome: string,
  owner: Owner,
  servers: Servers,
): void {
  const path = join(claudeHome, ".claude.json");
  const state = readState(path);
  if (!state) return;
  const before = state["mcpServers"] ?? {};
  if (!isObject(before)) return;
  const kept = Object.entries(before as Record<string, Entry>)
    .filter(([, entry]) => entry?.headers?.[mark] === undefined);
  const token = servers.size === 0 ? "" : workerToken(
    tokenKey(home, instanceOwner),
    relative(home.home, claudeHome),
  );
  const entries = Object.fromEntries([
    ...[...servers].filter(([, { api }]) => !api).map(([name, { port }]) => [
      name,
      {
        type: "http",
        url: `http://127.0.0.1:${port}/mcp`,
        headers: { [mark]: name, [tokenHeader]: token },
      },
    ]),
    // The session's own entries override ours with the same name.
    ...kept,
  ]);
  if (JSON.stringify(entries) === JSON.stringify(before)) return;
  const text = JSON.stringify({ ...state, mcpServers: entries }, null, 2);
  replaceFile(path, text, owner, { sync: false });
}

/** The worker can write this file; if it is unreadable, it is left to the CLI. */
function readState(path: string): Record<string, unknown> | undefined {
  try {
    const text = readPlainFile(path, { maxBytes }).toString("utf8");
    const state: unknown = isTooComplex(text) ? undefined : JSON.parse(text);
    return isObject(state) ? state : undefined;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" ? {} : undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Logs one warning about the servers that are unavailable. */
export async function warnAboutUnavailable(
  { home }: Pick<Instance, "home">,
  servers: Servers,
  log: Log,
): Promise<void> {
  if (servers.size === 0) return;
  const status = await askGateway(home, "status").catch(() => undefined);
  if (!status) {
    return log(
      "warning: the MCP gateway is not running; start it: claudy mcp start",
    );
  }
  const ready = status.servers
    .filter(({ state }) => state === "ready" || state === "starting")
    .map(({ name }) => name);
  const missing = [...servers.keys()].filter((name) => !ready.includes(name));
  if (missing.length > 0) {
    log(`warning: MCP servers that do not answer: ${missing.join(", ")}`);
  }
}
