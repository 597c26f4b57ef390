// The gateway: one process that serves all MCP servers that workers may use on the
// host, and answers commands.

import process from "node:process";
import * as v from "valibot";
import { Failure, messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { type Owner, ownerOf, writeAtomic } from "../std/owned.ts";
import type { HomePaths } from "../instance/paths.ts";
import { listen, type Listener } from "../std/socket-lines.ts";
import type { Settings } from "../instance/settings.ts";
import { askGateway, requestSchema, type ServedStatus } from "../mcp/client.ts";
import {
  expandServer,
  findCommand,
  readServers,
  type ServerConfig,
} from "../mcp/config.ts";
import { tokenKey } from "../mcp/identity.ts";
import { Unread } from "./outlet.ts";
import { takePathIfFree } from "./place.ts";
import { endServerGroups } from "./processes.ts";
import { ServedMcp, type ServedOptions } from "./server.ts";
import { ServerLog } from "./server-log.ts";
import { Watch } from "./watch.ts";
import { forgetTunnels, serveTunnels, type Tunnels } from "./tunnel.ts";

/** Interval of the checks that the gateway is still wanted and still the only one. */
const checkMs = 500;

export interface GatewayOptions {
  home: HomePaths;
  settings: Pick<Settings, "CHROMADB_PORT">;
  checkout: string;
  env: NodeJS.ProcessEnv;
  /** Whether unix sockets do not reach the engine's machine. */
  tunnels: boolean;
  /** Checked repeatedly. */
  isWanted: () => boolean;
}

/**
 * Serves until `stop` is aborted, a stop command arrives, or it is no longer
 * wanted.
 */
export async function serveGateway(
  options: GatewayOptions,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  const { home, isWanted } = options;
  const owner = ownerOf(home.home);
  const gateway = new Gateway(options, owner, log);
  let end = () => {};
  const ended = new Promise<void>((resolve) => end = resolve);
  stop.addEventListener("abort", end);
  const answer = async (request: unknown) => {
    const { op } = v.parse(requestSchema, request);
    if (op === "stop") {
      setTimeout(end); // after the answer is sent
      return {};
    }
    await ready;
    if (op === "reload") await gateway.load();
    const { servers, tunnels } = gateway;
    return { pid: process.pid, tunnels, servers };
  };
  let control: Listener | undefined;
  const place = await takePathIfFree(
    home.mcpControl,
    owner,
    async (path) => {
      control = await listen(path, answer);
    },
    () => isAnswered(home),
  );
  if (!place) {
    await control?.close();
    throw new Failure("busy", "The MCP gateway is already running", {
      hint: "Restart it: claudy mcp restart",
    });
  }
  writeAtomic(home.mcpPid, String(process.pid), owner);
  const ready = gateway.endLeftovers().then(() => gateway.load());
  let lost = 0;
  const checks = setInterval(() => {
    // Another starting gateway may move the socket away for a moment.
    lost = place.isOurs() ? 0 : lost + 1;
    if (lost > 1 || !isWanted()) end();
  }, checkMs);
  try {
    await ready;
    await ended;
  } finally {
    clearInterval(checks);
    await gateway.close();
    // Last: a command that waits for the end of this one may start the next.
    place.leave();
    await control?.close();
  }
}

async function isAnswered(home: HomePaths): Promise<boolean> {
  try {
    return await askGateway(home, "status") !== undefined;
  } catch {
    // It runs, but is busy.
    return true;
  }
}

/** The servers in service. */
class Gateway {
  readonly #options: GatewayOptions;
  readonly #owner: Owner;
  readonly #log: Log;
  readonly #served = new Map<string, { given: string; server: ServedMcp }>();
  readonly #unread = new Unread();
  readonly #watch = new Watch();
  #loading = Promise.resolve();
  #tunnels: Tunnels | undefined;

  constructor(options: GatewayOptions, owner: Owner, log: Log) {
    this.#options = options;
    this.#owner = owner;
    this.#log = log;
  }

  get servers(): ServedStatus[] {
    return [...this.#served.values()].map(({ server }) => server.status);
  }

  /** Ends servers left by a killed gateway, e.g. ones that ignore EOF. */
  async endLeftovers(): Promise<void> {
    const count = await endServerGroups(this.#options.home.home);
    if (count > 0) this.#log(`Ended ${count} servers of a killed gateway`);
  }

  /** Applies the current configuration; unchanged servers keep running. */
  async load(): Promise<void> {
    const loaded = this.#loading.then(() => this.#load());
    this.#loading = loaded.catch(() => {});
    await loaded;
  }

  /** The port for tunnels, null without tunnels. */
  get tunnels(): number | null {
    return this.#tunnels?.port ?? null;
  }

  async close(): Promise<void> {
    await this.#loading;
    await this.#tunnels?.close();
    await Promise.all(
      [...this.#served.values()].map(({ server }) => server.close()),
    );
  }

  async #load(): Promise<void> {
    const { home, settings } = this.#options;
    await this.#ensureTunnels();
    const wanted = readServers(home, settings);
    for (const [name, { given, server }] of this.#served) {
      if (JSON.stringify(wanted.get(name)) === given) continue;
      this.#served.delete(name);
      await server.close();
    }
    for (const [name, config] of wanted) {
      if (!this.#served.has(name)) await this.#serve(name, config);
    }
    this.#log(`Serving ${[...this.#served.keys()].join(", ")}`);
  }

  async #ensureTunnels(): Promise<void> {
    const { home, tunnels } = this.#options;
    if (this.#tunnels) return;
    forgetTunnels(home.ways);
    if (!tunnels) return;
    const socketOf = (name: string) =>
      this.#served.has(name) ? home.mcpSocket(name) : undefined;
    this.#tunnels = await serveTunnels(home.ways, socketOf, this.#owner);
  }

  async #serve(name: string, config: ServerConfig): Promise<void> {
    const { home, checkout, env } = this.#options;
    const source = sourceOf(config, checkout, env);
    if (source.missing) this.#log(`${name}: ${source.missing}`);
    const server = new ServedMcp({
      home: home.home,
      name,
      ...source,
      socket: home.mcpSocket(name),
      owner: this.#owner,
      tokenKey: tokenKey(home, this.#owner),
      unread: this.#unread,
      watch: this.#watch,
      log: new ServerLog(home.mcpLog(name), this.#owner),
    });
    await server.listen();
    this.#served.set(name, { given: JSON.stringify(config), server });
    void server.check();
  }
}

/** Finds the command and expands variables, or gives the reason why it cannot. */
function sourceOf(
  given: ServerConfig,
  checkout: string,
  env: NodeJS.ProcessEnv,
): Pick<ServedOptions, "config" | "command" | "missing"> {
  const none = { command: undefined, missing: undefined };
  try {
    const config = expandServer(given, env);
    if (config.command === undefined) return { ...none, config };
    const command = findCommand(config.command, checkout, env);
    if (command !== undefined) return { ...none, config, command };
    throw new Error(`command not found on the host: ${config.command}`);
  } catch (error) {
    return { ...none, config: given, missing: messageOf(error) };
  }
}
