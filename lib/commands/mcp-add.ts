// Builds a server's configuration from the options of mcp add.

import { resolve } from "node:path";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { checkServer, readServers } from "../mcp/config.ts";
import { freePort } from "../gateway/configuring.ts";
import { listOf } from "../cli/options.ts";

export interface AddOptions {
  port?: unknown;
  isolation?: unknown;
  idleTimeout?: unknown;
  env?: unknown;
  url?: unknown;
  header?: unknown;
  api?: boolean;
  "--"?: string[];
}

/** An entry of config/mcp.json. Throws a Failure if it is invalid or exists already. */
export function describe(
  instance: Instance,
  options: AddOptions,
  { name, env: own }: { name: string; env: NodeJS.ProcessEnv },
): Record<string, unknown> {
  if (readServers(instance.home, instance.settings).has(name)) {
    throw new Failure("busy", `MCP server "${name}" already exists`, {
      hint: `Remove it first: claudy mcp remove ${name}`,
    });
  }
  const [program, ...args] = options["--"] ?? [];
  const { url, isolation, idleTimeout, port } = options;
  const env = listOf(options.env);
  const headers = listOf(options.header);
  if (program === undefined && env.length > 0) {
    throw new Failure("usage", "--env needs a program after --", {
      hint: "For example: claudy mcp add NAME --env KEY -- npx -y SERVER",
    });
  }
  if (url === undefined && headers.length > 0) {
    throw new Failure("usage", "--header needs --url", {
      hint: "A program after -- gets variables instead: --env KEY=VALUE",
    });
  }
  if (url === undefined && options.api) {
    throw new Failure("usage", "--api needs --url", {
      hint:
        "For example: claudy mcp add NAME --api --url http://localhost:4000",
    });
  }
  const server = {
    ...(program === undefined ? {} : { command: absolute(program), args }),
    ...(url === undefined ? {} : { url: String(url) }),
    ...(options.api ? { api: true } : {}),
    ...(env.length > 0
      ? { env: Object.fromEntries(env.map((given) => variable(given, own))) }
      : {}),
    ...(headers.length > 0
      ? { headers: Object.fromEntries(headers.map(header)) }
      : {}),
    port: port === undefined ? freePort(instance) : Number(port),
    ...(isolation === undefined ? {} : { isolation: String(isolation) }),
    ...(idleTimeout === undefined ? {} : { idleTimeout: Number(idleTimeout) }),
  };
  checkServer(name, server, "mcp add");
  return { [name]: server };
}

/** Resolves a path, since the gateway has another working directory. */
function absolute(program: string): string {
  return program.includes("/") ? resolve(program) : program;
}

function header(given: string): [string, string] {
  const [name = "", value] = given.split(/:\s*(.*)/s);
  if (/^[\w-]+$/.test(name) && value) return [name, value];
  throw new Failure("usage", "--header must be NAME: VALUE", {
    hint: 'For example: --header "Authorization: Bearer TOKEN"',
  });
}

/**
 * KEY=VALUE, or KEY to take the value from the environment, where ps does not show
 * it.
 */
function variable(
  given: string,
  own: NodeJS.ProcessEnv,
): [string, string] {
  const [name = ""] = given.split("=", 1);
  const value = given === name ? own[name] : given.slice(name.length + 1);
  if (/^[A-Za-z_]\w*$/.test(name) && value !== undefined) return [name, value];
  throw new Failure(
    "usage",
    given === name
      ? `--env ${name}: the variable is not set`
      : "--env must be KEY=VALUE, or KEY of a variable that is set",
  );
}
