// The MCP servers of the host, as mcp-gateway and claudy offer them.

import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import type { CAC, Command } from "cac";
import { Failure } from "../std/errors.ts";
import { type Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { viewInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import { askGateway, type ServedStatus } from "../mcp/client.ts";
import { readServers, type ServerConfig } from "../mcp/config.ts";
import {
  changeServers,
  ensureConfig,
  serversOfClaude,
} from "../gateway/configuring.ts";
import { checkMcp } from "../doctor/mcp.ts";
import { ensureForwarder } from "../daemon/forwarder.ts";
import { startGateway, stopGateway } from "../gateway/gateway-process.ts";
import { didYouMean } from "../std/nearest.ts";
import { columns } from "../std/text.ts";
import { ensureHome } from "../instance/volumes.ts";
import { waitFor } from "../std/wait.ts";
import { checkout } from "../std/checkout.ts";
import { type AddOptions, describe } from "./mcp-add.ts";
import { lastLines, type LogOptions } from "../cli/logs.ts";
import { action } from "../cli/options.ts";
import { answer, confirm } from "../cli/output.ts";

const { env } = process;
const host = { checkout, env };

interface Options extends AddOptions, LogOptions {
  fromClaude?: boolean;
  yes?: boolean;
  json?: boolean;
}

type Act = (
  instance: Instance,
  options: Options,
  name: string | undefined,
) => Promise<number | void>;

/** Those that run on the host only, and those that are about one server. */
const onHost = ["start", "stop", "restart", "add", "remove"];
const aboutOne = ["add", "remove", "logs"];

const actions: Record<string, Act> = {
  start: async (instance, options) => {
    if (ensureConfig(instance, host, logToStderr)) {
      logToStderr(`Wrote ${instance.home.mcpConfig}`);
    }
    await startGateway(instance, host);
    await settle(instance);
    await ensureForwarder(instance);
    await show(instance, options);
  },
  stop: async (instance) => {
    const stopped = await stopGateway(instance);
    logToStderr(
      stopped ? "MCP gateway stopped" : "The MCP gateway does not run",
    );
  },
  restart: async (instance, options) => {
    serversOf(instance); // before anything is ended
    await stopGateway(instance);
    await actions["start"]?.(instance, options, undefined);
  },
  status: show,
  logs: (instance, options, name) => {
    const path = instance.home.mcpLog(name ?? "gateway");
    if (name !== undefined && name !== "gateway") findServer(instance, name);
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    answer(null, lastLines(text, options), false);
    return Promise.resolve();
  },
  list: (instance, options) => {
    const servers = [...serversOf(instance)].map(([name, server]) => ({
      name,
      port: server.port,
      isolation: server.isolation,
      // Arguments may be secrets, as values of variables are.
      what: server.command ?? withoutQuery(server.url ?? ""),
      arguments: server.args.length,
      variables: Object.keys(server.env),
    }));
    const rows = servers.map(({ name, port, isolation, what }) => [
      name,
      String(port),
      isolation,
      what,
    ]);
    answer(
      servers,
      columns([["SERVER", "PORT", "ISOLATION", "WHAT"], ...rows]),
      options.json ?? false,
    );
    return Promise.resolve();
  },
  add: async (instance, options, name) => {
    ensureConfig(instance, host, logToStderr);
    const { servers, left } = options.fromClaude
      ? serversOfClaude(instance, env)
      : { servers: describe(instance, options, wanted(name)), left: [] };
    changeServers(instance, (present) => ({ ...present, ...servers }));
    for (const line of left) logToStderr(`Left out: ${line}`);
    const added = Object.keys(servers);
    if (added.length > 0) await applyChange(instance);
    const status = await askGateway(instance.home, "status");
    const now = status?.servers.filter(({ name }) => added.includes(name));
    answer(
      { added, left, servers: now ?? [] },
      now?.length ? statusText(now) : `Added: ${added.join(", ") || "nothing"}`,
      options.json ?? false,
    );
    logToStderr(status ? nextStart : "They start with claudy mcp start");
  },
  remove: async (instance, options, name) => {
    ensureConfig(instance, host, logToStderr);
    findServer(instance, wanted(name));
    await confirm(`Remove ${name}?`, options.yes ?? false);
    changeServers(instance, (servers) => {
      const { [wanted(name)]: _, ...rest } = servers;
      return rest;
    });
    await applyChange(instance);
    answer({ removed: name }, `Removed: ${name}`, options.json ?? false);
  },
  doctor: examine,
};

const nextStart = "Sessions have what changed from their next start on";

export const mcpActionNames = Object.keys(actions);

/** The options of both commands. */
export function addMcpOptions(command: Command): Command {
  return command
    .usage(`${command.rawName} [-- program arguments...]`)
    .option(
      "--port <n>",
      "add: on 127.0.0.1 of the workers (default: a free one)",
    )
    .option(
      "--isolation <how>",
      "add: session, a process for each client, or shared (default: session)",
    )
    .option(
      "--idle-timeout <seconds>",
      "add: before a silent client is forgotten (default: 300)",
    )
    .option(
      "--env <KEY[=VALUE]>",
      "add: variable of its process, KEY alone as it is set here; repeatable",
      { type: [String] },
    )
    .option("--url <url>", "add: a server that listens on the host already")
    .option("--header <NAME: VALUE>", "add: sent to that; repeatable", {
      type: [String],
    })
    .option("--from-claude", "add: those of the host's Claude configuration")
    .option("--tail <n>", "logs: begin so many lines before the end")
    .option("--yes", "remove: do not ask")
    .option("--json", "Print the result as JSON");
}

export async function actOnMcp(
  name: string,
  server: string | undefined,
  options: Options,
): Promise<number | void> {
  const act = action("mcp", actions, name);
  const one = aboutOne.includes(name) && !options.fromClaude;
  if (server !== undefined && !one) {
    throw new Failure("usage", `mcp ${name} is about all servers`, {
      hint: `Leave out "${server}".`,
    });
  }
  if (!onHost.includes(name)) {
    return await act(await viewInstance(env, logToStderr), options, server);
  }
  const instance = await openInstance(env, logToStderr);
  refuseInside(instance);
  ensureHome(instance);
  return await act(instance, options, server);
}

/** Adds claudy mcp. */
export function addMcp(cli: CAC): void {
  addMcpOptions(
    cli.command(
      "mcp <action> [server]",
      `${mcpActionNames.join(", ")} of the host's MCP servers`,
    ),
  )
    .example("claudy mcp add notes -- npx -y notes-server")
    .action(actOnMcp);
}

function refuseInside({ self }: Instance): void {
  if (!self) return;
  throw new Failure("usage", "The parent cannot run the host's MCP servers", {
    hint: "Run this on the host.",
  });
}

/** Waits a while for those that start, so that it is told how that went. */
async function settle({ home }: Instance): Promise<void> {
  const settled = async () =>
    (await askGateway(home, "status"))?.servers
      .every(({ state }) => state !== "starting");
  await waitFor(settled, { for: "the MCP servers", timeoutMs: 10_000 })
    .catch(() => {});
}

/**
 * After a change: a gateway that runs serves what is new, and leaves the others. The
 * port is held at once, gateway or not.
 */
async function applyChange(instance: Instance): Promise<void> {
  const gateway = await askGateway(instance.home, "reload");
  if (gateway) await settle(instance);
  try {
    await ensureForwarder(instance);
  } catch (error) {
    // Without an engine there is no network either.
    if (gateway) throw error;
  }
}

/** What comes behind may be a secret. */
function withoutQuery(url: string): string {
  return url.replace(/[?#].*/, "").replace(/\/\/[^/]*@/, "//");
}

function serversOf({ home, settings }: Instance) {
  return readServers(home, settings);
}

function wanted(name: string | undefined): string {
  if (name !== undefined) return name;
  throw new Failure("usage", "The name of a server is wanted");
}

function findServer(instance: Instance, name: string): ServerConfig {
  const servers = serversOf(instance);
  const found = servers.get(name);
  if (found) return found;
  throw new Failure("notFound", `There is no MCP server "${name}"`, {
    hint: `${didYouMean(name, [...servers.keys()])}See claudy mcp list.`,
  });
}

async function show(instance: Instance, options: Options): Promise<void> {
  const status = await askGateway(instance.home, "status");
  answer(
    status ?? { pid: null, tunnels: null, servers: [] },
    status ? statusText(status.servers) : "The MCP gateway does not run",
    options.json ?? false,
  );
}

function statusText(servers: ServedStatus[]): string {
  const rows = servers.map((server) => [
    server.name,
    server.state,
    String(server.port),
    String(server.sessions),
    String(server.processes),
    String(server.calls),
    server.latencyMs.p50 === null ? "" : `${server.latencyMs.p50} ms`,
    server.latencyMs.p99 === null ? "" : `${server.latencyMs.p99} ms`,
    server.lastError ?? "",
  ]);
  return columns([
    [
      "SERVER",
      "STATE",
      "PORT",
      "CLIENTS",
      "PROCESSES",
      "CALLS",
      "P50",
      "P99",
      "LAST ERROR",
    ],
    ...rows,
  ]);
}

/** Whether each answers a greeting; 1 where one does not. */
async function examine(instance: Instance, options: Options): Promise<number> {
  const checks = await checkMcp(instance);
  const rows = checks.map(({ name, ok, says }) => [
    ok ? "ok" : "FAIL",
    name,
    says,
  ]);
  answer(checks, columns(rows), options.json ?? false);
  return checks.every(({ ok }) => ok) ? 0 : 1;
}
