// The MCP servers of the host, as mcp-gateway and claudy offer them.

import { spawn } from "node:child_process";
import { closeSync, existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { CAC } from "cac";
import { Failure } from "../lib/errors.ts";
import { type Instance, openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { askGateway, type GatewayStatus } from "../lib/mcp/client.ts";
import {
  checkServer,
  checkServers,
  defaultServers,
  findCommand,
  readServers,
  type ServerConfig,
} from "../lib/mcp/config.ts";
import { ensureForwarder } from "../lib/mcp/forwarder.ts";
import { greet } from "../lib/mcp/greet.ts";
import { didYouMean } from "../lib/nearest.ts";
import { openForOutput, writeWhole } from "../lib/owned.ts";
import { columns } from "../lib/text.ts";
import { ensureHome } from "../lib/volumes.ts";
import { waitFor } from "../lib/wait.ts";
import { checkout } from "./cli.ts";
import { lastLines, type LogOptions } from "./logs.ts";
import { action, listOf } from "./options.ts";
import { answer, confirm } from "./output.ts";

const { env } = process;

interface Options extends LogOptions {
  port?: unknown;
  isolation?: unknown;
  idleTimeout?: unknown;
  env?: unknown;
  url?: unknown;
  fromClaude?: boolean;
  yes?: boolean;
  json?: boolean;
  "--"?: string[];
}

type Act = (
  instance: Instance,
  options: Options,
  name: string | undefined,
) => Promise<number | void>;

const actions: Record<string, Act> = {
  start: async (instance, options) => {
    refuseInside(instance);
    ensureConfig(instance);
    await startGateway(instance);
    await ensureForwarder(instance);
    await show(instance, options);
  },
  stop: async (instance) => {
    refuseInside(instance);
    await stopGateway(instance);
    logToStderr("MCP gateway stopped");
  },
  restart: async (instance, options) => {
    refuseInside(instance);
    await stopGateway(instance);
    ensureConfig(instance);
    await startGateway(instance);
    await ensureForwarder(instance);
    await show(instance, options);
  },
  status: show,
  logs: (instance, options, name) => {
    const path = instance.home.mcpLog(name ?? "gateway");
    if (name !== undefined) findServer(instance, name);
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    answer(null, lastLines(text, options), false);
    return Promise.resolve();
  },
  list: (instance, options) => {
    const servers = [...serversOf(instance)].map(([name, server]) => ({
      name,
      port: server.port,
      isolation: server.isolation,
      what: server.url === undefined
        ? [server.command, ...server.args].join(" ")
        : new URL(server.url).origin,
      // Never their values.
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
    const found = options.fromClaude
      ? fromClaude(instance)
      : { [wanted(name)]: described(instance, options) };
    const added = Object.keys(found).filter((one) =>
      !options.fromClaude || !serversOf(instance).has(one)
    );
    for (const one of added) {
      const config = checkServer(one, found[one], `mcp add ${one}`);
      change(instance, (servers) => ({ ...servers, [one]: config }));
    }
    answer(
      { added },
      `Added: ${added.join(", ") || "nothing"}`,
      options.json ?? false,
    );
    await applyChange(instance);
  },
  remove: async (instance, options, name) => {
    findServer(instance, wanted(name));
    await confirm(`Remove ${name}?`, options.yes ?? false);
    change(instance, (servers) => {
      const { [wanted(name)]: _, ...rest } = servers;
      return rest;
    });
    await applyChange(instance);
  },
  doctor: examine,
};

export const mcpActionNames = Object.keys(actions);

/** The options of both commands. */
export function addMcpOptions(command: ReturnType<CAC["command"]>) {
  return command
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
    .option("--env <KEY=VALUE>", "add: variable of its process; repeatable", {
      type: [String],
    })
    .option("--url <url>", "add: a server that listens on the host already")
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
  const instance = await openInstance(env, logToStderr);
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
    .example("claudy mcp add notes --port 3010 -- npx -y notes-server")
    .action(actOnMcp);
}

/** Starts it where servers are configured and it does not run. */
export async function startConfiguredGateway(
  instance: Instance,
): Promise<void> {
  if (instance.self || !existsSync(instance.home.mcpConfig)) return;
  try {
    await startGateway(instance);
  } catch (error) {
    // Sessions do without.
    logToStderr(
      `warning: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function refuseInside({ self }: Instance): void {
  if (!self) return;
  throw new Failure("usage", "The parent cannot run the host's MCP servers", {
    hint: "Run this on the host.",
  });
}

async function startGateway(instance: Instance): Promise<void> {
  const { home, owner, settings } = instance;
  readServers(home, settings); // its faults are told here
  if (await askGateway(home, "status")) return;
  const log = openForOutput(home.mcpLog("gateway"), "a", owner);
  const script = join(checkout, "scripts", "mcp-gateway.ts");
  // Out of this terminal's session, so that it stays when that closes; and again
  // where it was killed.
  const loop = 'until "$0" serve; [ $? -lt 128 ]; do sleep 1; done';
  const child = spawn("setsid", ["--fork", "sh", "-c", loop, script], {
    stdio: ["ignore", log, log],
    env,
  });
  child.unref();
  closeSync(log);
  await waitFor(() => askGateway(home, "status").catch(() => undefined), {
    for: "the MCP gateway",
    timeoutMs: 20_000,
    hint: `See ${home.mcpLog("gateway")}.`,
  });
}

async function stopGateway({ home }: Instance): Promise<void> {
  if (!await askGateway(home, "stop")) return;
  await waitFor(
    async () => !await askGateway(home, "status").catch(() => true),
    {
      for: "the MCP gateway to end",
      timeoutMs: 10_000,
    },
  );
}

/** After a change: a gateway that runs has the new servers. */
async function applyChange(instance: Instance): Promise<void> {
  if (!await askGateway(instance.home, "status").catch(() => undefined)) return;
  await stopGateway(instance);
  await startGateway(instance);
  await ensureForwarder(instance);
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

/** What can be had of the default servers is written down, to be seen and changed. */
function ensureConfig(instance: Instance): void {
  const { home, settings, owner } = instance;
  if (existsSync(home.mcpConfig)) return;
  const servers = Object.fromEntries(
    Object.entries(defaultServers(home, settings)).filter(([name, server]) => {
      const found = findCommand(server.command ?? "", checkout, env);
      if (!found) {
        logToStderr(`${name} is left out: there is no ${server.command}`);
      }
      return found !== undefined;
    }),
  );
  writeConfig({ home, owner }, servers);
}

function change(
  instance: Instance,
  how: (servers: Record<string, unknown>) => Record<string, unknown>,
): void {
  ensureConfig(instance);
  const text = readFileSync(instance.home.mcpConfig, "utf8");
  const servers = how(JSON.parse(text).mcpServers);
  checkServers(servers); // as two of one port
  writeConfig(instance, servers);
}

function writeConfig(
  { home, owner }: Pick<Instance, "home" | "owner">,
  mcpServers: Record<string, unknown>,
): void {
  const text = JSON.stringify({ mcpServers }, null, 2);
  writeWhole(home.mcpConfig, `${text}\n`, owner);
}

/** Behind those of the default servers. */
const firstPort = 3010;

function freePort(instance: Instance, taken: number[] = []): number {
  const used = [...serversOf(instance).values()].map(({ port }) => port);
  let port = firstPort;
  while (used.includes(port) || taken.includes(port)) port++;
  return port;
}

function described(instance: Instance, options: Options): unknown {
  const [command, ...args] = options["--"] ?? [];
  const idle = options.idleTimeout;
  return {
    ...(command === undefined ? {} : { command, args }),
    ...(options.url === undefined ? {} : { url: String(options.url) }),
    ...variables(listOf(options.env)),
    port: options.port === undefined
      ? freePort(instance)
      : Number(options.port),
    ...(options.isolation === undefined
      ? {}
      : { isolation: String(options.isolation) }),
    ...(idle === undefined ? {} : { idleTimeout: Number(idle) }),
  };
}

function variables(pairs: string[]): { env?: Record<string, string> } {
  if (pairs.length === 0) return {};
  return {
    env: Object.fromEntries(pairs.map((pair) => {
      const at = pair.indexOf("=");
      if (at > 0) return [pair.slice(0, at), pair.slice(at + 1)];
      throw new Failure("usage", "--env must be KEY=VALUE");
    })),
  };
}

/** Programs and local servers that the host's Claude knows for its user. */
function fromClaude(instance: Instance): Record<string, unknown> {
  const claudeHome = env["CLAUDE_HOME"] ||
    join(env["HOME"] || homedir(), ".claude");
  const path = [join(claudeHome, ".claude.json"), `${claudeHome}.json`]
    .find((path) => existsSync(path));
  const servers = path === undefined
    ? {}
    : JSON.parse(readFileSync(path, "utf8")).mcpServers ?? {};
  const ports: number[] = [];
  return Object.fromEntries(
    Object.entries(servers as Record<string, Record<string, unknown>>)
      .flatMap(([name, { command, args, env, url, headers }]) => {
        if (command === undefined && url === undefined) return [];
        const port = freePort(instance, ports);
        ports.push(port);
        const entry = command === undefined
          ? { url, headers: headers ?? {}, port }
          : { command, args: args ?? [], env: env ?? {}, port };
        return [[name, entry]];
      }),
  );
}

async function show(instance: Instance, options: Options): Promise<void> {
  const status = await askGateway(instance.home, "status");
  answer(
    status ?? { pid: null, servers: [] },
    statusText(status),
    options.json ?? false,
  );
}

function statusText(status: GatewayStatus | undefined): string {
  if (!status) return "The MCP gateway does not run";
  const rows = status.servers.map((server) => [
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
  const { home } = instance;
  const running = await askGateway(home, "status").catch(() => undefined);
  const checks = await Promise.all(
    [...serversOf(instance).keys()].map(async (name) => {
      if (!running) {
        return { name, ok: false, says: "the gateway does not run" };
      }
      try {
        return { name, ok: true, says: await greet(home.mcpSocket(name)) };
      } catch (error) {
        const says = error instanceof Error ? error.message : String(error);
        return { name, ok: false, says };
      }
    }),
  );
  const rows = checks.map((
    { name, ok, says },
  ) => [ok ? "ok" : "FAIL", name, says]);
  answer(checks, columns(rows), options.json ?? false);
  return checks.every(({ ok }) => ok) ? 0 : 1;
}
