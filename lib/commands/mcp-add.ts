// What mcp add is told of a server.

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
  "--"?: string[];
}

/** As config/mcp.json has it; throws a Failure where it would be none, or another. */
export function describe(
  instance: Instance,
  options: AddOptions,
  { name, env: own }: { name: string; env: NodeJS.ProcessEnv },
): Record<string, unknown> {
  if (readServers(instance.home, instance.settings).has(name)) {
    throw new Failure("busy", `There is an MCP server "${name}"`, {
      hint: `Remove it first: claudy mcp remove ${name}`,
    });
  }
  const [program, ...args] = options["--"] ?? [];
  const { url, isolation, idleTimeout, port } = options;
  const env = listOf(options.env);
  const headers = listOf(options.header);
  if (program === undefined && env.length > 0) {
    throw new Failure("usage", "--env is of a program, which comes behind --");
  }
  if (url === undefined && headers.length > 0) {
    throw new Failure("usage", "--header is of a --url");
  }
  const server = {
    ...(program === undefined ? {} : { command: absolute(program), args }),
    ...(url === undefined ? {} : { url: String(url) }),
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

/** A path is of this directory; the gateway has another. */
function absolute(program: string): string {
  return program.includes("/") ? resolve(program) : program;
}

function header(given: string): [string, string] {
  const [name = "", value] = given.split(/:\s*(.*)/s);
  if (/^[\w-]+$/.test(name) && value) return [name, value];
  throw new Failure("usage", "--header must be NAME: VALUE");
}

/** KEY=VALUE, or KEY alone for what this environment has: so others do not see it. */
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
      ? `--env ${name}: it is not set here`
      : "--env must be KEY=VALUE, or KEY where that is set",
  );
}
