// The commands of claudy mcp and mcp-gateway: the host's MCP servers.

import { existsSync, readFileSync } from "node:fs";
import type { CAC } from "cac";
import { Failure } from "../std/errors.ts";
import { type Instance } from "../instance/instance.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import { askGateway, type ServedStatus } from "../mcp/client.ts";
import { readServers, type ServerConfig } from "../mcp/config.ts";
import {
  changeServers,
  ensureConfig,
  importableServers,
} from "../gateway/configuring.ts";
import { checkMcp } from "../doctor/mcp.ts";
import { waitForPorts } from "../daemon/services.ts";
import { startGateway, stopGateway } from "../gateway/gateway-process.ts";
import { didYouMean } from "../std/nearest.ts";
import { columns } from "../std/text.ts";
import { ensureHome } from "../instance/volumes.ts";
import { waitFor } from "../std/wait.ts";
import { checkout } from "../std/checkout.ts";
import { type AddOptions, describe } from "./mcp-add.ts";
import { followFile, lastLines, type LogOptions } from "../cli/logs.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

interface Options extends AddOptions, LogOptions {
  fromClaude?: boolean;
  yes?: boolean;
  json?: boolean;
}

const nextStart = "Restart sessions to apply the change";

export function mcpCommand(name: string, io: Io): CAC {
  const cli = command(name);
  const jsonOption = ["--json", "Print the result as JSON"] as const;
  const host = { checkout, env: io.env };
  const view = () => viewInstance(io.env, io.log);
  /** For commands that only work on the host. */
  const open = async () => {
    const instance = await openInstance(io.env, io.log);
    if (instance.self) {
      throw new Failure(
        "usage",
        "The parent cannot run the host's MCP servers",
        { hint: "Run this on the host." },
      );
    }
    ensureHome(instance);
    return instance;
  };
  const start = async (instance: Instance, options: Options) => {
    if (ensureConfig(instance, host, io.log)) {
      io.log(`Wrote ${instance.home.mcpConfig}`);
    }
    await startGateway(instance, host);
    await settle(instance);
    await waitForPorts(instance);
    await show(io, instance, options);
  };

  cli.command("start", "Start the gateway and the configured servers")
    .option(...jsonOption)
    .action(async (options: Options) => await start(await open(), options));

  cli.command("stop", "Stop the gateway and all servers")
    .option(...jsonOption)
    .action(async () => {
      const stopped = await stopGateway(await open());
      io.log(
        stopped ? "MCP gateway stopped" : "The MCP gateway is not running",
      );
    });

  cli.command("restart", "Restart the gateway")
    .option(...jsonOption)
    .action(async (options: Options) => {
      const instance = await open();
      serversOf(instance); // report errors before stopping anything
      await stopGateway(instance);
      await start(instance, options);
    });

  cli.command("status", "Show the status of the servers")
    .option(...jsonOption)
    .action(async (options: Options) => show(io, await view(), options));

  cli.command("logs [server]", "Print the log of the gateway, or of a server")
    .option("-f, --follow", "Follow log output")
    .option("--tail <n>", "Number of lines to show from the end (default: all)")
    .action(async (given: unknown, options: Options) => {
      const instance = await view();
      const server = given === undefined ? "gateway" : String(given);
      if (server !== "gateway") findServer(instance, server);
      const path = instance.home.mcpLog(server);
      if (options.follow) return await followFile(path, options);
      const text = existsSync(path) ? readFileSync(path, "utf8") : "";
      io.answer(null, lastLines(text, options));
    });

  cli.command("list", "List the configured servers")
    .option(...jsonOption)
    .action(async ({ json }: Options) => {
      const servers = [...serversOf(await view())].map(([name, server]) => ({
        name,
        port: server.port,
        isolation: server.isolation,
        // Without the values of arguments and variables, which may be secrets.
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
      const text = columns([["SERVER", "PORT", "ISOLATION", "WHAT"], ...rows]);
      io.answer(servers, text, json);
    });

  cli.command(
    "add [server]",
    "Add a server, or import those of the host's Claude",
  )
    .usage("add [server] [-- program arguments...]")
    .option(
      "--port <n>",
      "Port on 127.0.0.1 of the workers (default: a free one)",
    )
    .option(
      "--isolation <how>",
      "session (one process per client) or shared (default: session)",
    )
    .option(
      "--idle-timeout <seconds>",
      "Idle seconds before a client is dropped (default: 300)",
    )
    .option(
      "--env <KEY[=VALUE]>",
      "Environment variable; KEY alone takes its current value; repeatable",
      { type: [String] },
    )
    .option("--url <url>", "URL of a server that already runs on the host")
    .option("--header <NAME: VALUE>", "Header to send to --url; repeatable", {
      type: [String],
    })
    .option(
      "--api",
      "The --url is an API gateway for ANTHROPIC_BASE_URL, not an MCP server",
    )
    .option(
      "--from-claude",
      "Import the servers of the host's Claude configuration",
    )
    .option(...jsonOption)
    .example(`${name} add notes -- npx -y notes-server`)
    .action(async (given: unknown, options: Options) => {
      if (given !== undefined && options.fromClaude) {
        throw new Failure(
          "usage",
          "--from-claude imports all servers and takes no name",
          {
            hint: `Omit "${given}".`,
          },
        );
      }
      const name = options.fromClaude ? "" : wanted(
        given,
        "For example: claudy mcp add notes -- npx -y notes-server",
      );
      const instance = await open();
      ensureConfig(instance, host, io.log);
      const { servers, left } = options.fromClaude
        ? importableServers(instance, io.env)
        : {
          servers: describe(instance, options, { name, env: io.env }),
          left: [],
        };
      changeServers(instance, (present) => ({ ...present, ...servers }));
      for (const line of left) io.log(`Left out: ${line}`);
      const added = Object.keys(servers);
      if (added.length > 0) await applyChange(instance);
      const status = await askGateway(instance.home, "status");
      const now = status?.servers.filter(({ name }) => added.includes(name));
      io.answer(
        { added, left, servers: now ?? [] },
        now?.length
          ? statusText(now)
          : `Added: ${added.join(", ") || "nothing"}`,
        options.json,
      );
      io.log(status ? nextStart : "Start them with: claudy mcp start");
    });

  cli.command("remove [server]", "Remove a server, after asking")
    .option("--yes", "Do not ask")
    .option(...jsonOption)
    .action(async (given: unknown, { yes, json }: Options) => {
      const name = wanted(given, "List the servers: claudy mcp list");
      const instance = await open();
      ensureConfig(instance, host, io.log);
      findServer(instance, name);
      await io.confirm(`Remove ${name}?`, yes);
      changeServers(instance, (servers) => {
        const { [name]: _, ...rest } = servers;
        return rest;
      });
      await applyChange(instance);
      io.answer({ removed: name }, `Removed: ${name}`, json);
    });

  cli.command(
    "doctor",
    "Check that each server answers; exit code 1 if one does not",
  )
    .option(...jsonOption)
    .action(async ({ json }: Options) => {
      const checks = await checkMcp(await view());
      const rows = checks.map(({ name, ok, says }) => [
        ok ? "ok" : "FAIL",
        name,
        says,
      ]);
      io.answer(checks, columns(rows), json);
      return checks.every(({ ok }) => ok) ? 0 : 1;
    });

  return cli;
}

/** Waits up to 10 s until no server is starting, so that their states can be shown. */
async function settle({ home }: Pick<Instance, "home">): Promise<void> {
  const settled = async () =>
    (await askGateway(home, "status"))?.servers
      .every(({ state }) => state !== "starting");
  await waitFor(settled, { for: "the MCP servers", timeoutMs: 10_000 })
    .catch(() => {});
}

/**
 * Applies a change: a running gateway starts the new servers and keeps the others. The
 * parent notices it, and reserves the port even if no gateway runs.
 */
async function applyChange(instance: Instance): Promise<void> {
  const gateway = await askGateway(instance.home, "reload");
  if (gateway) await settle(instance);
  try {
    await waitForPorts(instance);
  } catch (error) {
    // Without an engine there are no workers.
    if (gateway) throw error;
  }
}

/** Removes the user name and the query of a URL, which may be secrets. */
function withoutQuery(url: string): string {
  return url.replace(/[?#].*/, "").replace(/\/\/[^/]*@/, "//");
}

function serversOf({ home, settings }: Pick<Instance, "home" | "settings">) {
  return readServers(home, settings);
}

function wanted(name: unknown, hint: string): string {
  if (name !== undefined) return String(name);
  throw new Failure("usage", "Missing server name", { hint });
}

function findServer(instance: Instance, name: string): ServerConfig {
  const servers = serversOf(instance);
  const found = servers.get(name);
  if (found) return found;
  throw new Failure("notFound", `There is no MCP server "${name}"`, {
    hint: `${didYouMean(name, [...servers.keys()])}See claudy mcp list.`,
  });
}

async function show(
  io: Io,
  instance: Pick<Instance, "home">,
  { json }: Options,
): Promise<void> {
  const status = await askGateway(instance.home, "status");
  io.answer(
    status ?? { pid: null, tunnels: null, servers: [] },
    status
      ? statusText(status.servers)
      : "The MCP gateway is not running. Start it: claudy mcp start",
    json,
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
