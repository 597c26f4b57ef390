// Reads config/mcp.json: the host's MCP servers that workers may use, in the usual format
// with additional fields for the gateway.

import {
  accessSync,
  constants,
  existsSync,
  readFileSync,
  statSync,
} from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import * as v from "valibot";
import { moduleDirectories } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import { isLocalUrl } from "../std/local-url.ts";
import type { HomePaths } from "../instance/paths.ts";
import { isSessionPort, sessionPorts } from "../instance/port-range.ts";
import type { Settings } from "../instance/settings.ts";
import { parseSize, sizePattern } from "../std/units.ts";

/** Names with another meaning, here or in JavaScript. */
const reserved = [
  "gateway",
  "all",
  "constructor",
  "prototype",
  "hasOwnProperty",
];

const serverName = v.pipe(
  v.string(),
  v.regex(
    /^[a-zA-Z][\w-]{0,40}$/,
    "must be the name of a server: a letter, then letters, digits, dashes and underscores",
  ),
  v.check((name) => !reserved.includes(name), "is a reserved name"),
);

const portText = "must be a port from 1024 to 65535";
const port = v.pipe(
  v.number(portText),
  v.integer(portText),
  v.minValue(1024, portText),
  v.maxValue(65535, portText),
);

const text = v.string("must be a string");
const texts = v.record(text, text, "must be an object of strings");

const localUrl = v.pipe(
  text,
  v.check(
    (url) => url.includes("${") || isLocalUrl(url),
    "must be the URL of a server on this host; others need no gateway",
  ),
);

const seconds = "must be a number of seconds from 1 to 86400";

const memoryText = "must be a size such as 512m or 2g, at least 64m";
const countText = "must be a whole number from 1 to 10000";
const minMemoryBytes = 64 * 1024 ** 2;

const serverSchema = v.strictObject({
  /** Written by Claude; redundant. */
  type: v.optional(
    v.picklist(["stdio", "http"], 'must be "stdio" or "http"'),
  ),
  /** A program: an absolute path, or a name in node_modules/.bin or PATH. */
  command: v.optional(text),
  args: v.optional(v.array(text, "must be a list of strings"), []),
  env: v.optional(texts, {}),
  /** Instead of a command: a server that already listens on the host. */
  url: v.optional(localUrl),
  headers: v.optional(texts, {}),
  /** The url is not an MCP server but an API gateway, for ANTHROPIC_BASE_URL. */
  api: v.optional(v.boolean("must be true or false")),
  /** On the workers' 127.0.0.1. */
  port,
  /** "session": one process per client; "shared": one process for all. */
  isolation: v.optional(
    v.picklist(["session", "shared"], 'must be "session" or "shared"'),
    "session",
  ),
  /** Seconds until an idle client is dropped. */
  idleTimeout: v.optional(
    v.pipe(
      v.number(seconds),
      v.minValue(1, seconds),
      v.maxValue(86_400, seconds),
    ),
    300,
  ),
  /** Memory limit of one worker's processes, or of the shared process. */
  memory: v.optional(
    v.pipe(
      v.string(memoryText),
      v.regex(sizePattern, memoryText),
      v.check((size) => parseSize(size) >= minMemoryBytes, memoryText),
    ),
    "2g",
  ),
  /** Maximum number of these processes, including their children. */
  processes: v.optional(
    v.pipe(
      v.number(countText),
      v.integer(countText),
      v.minValue(1, countText),
      v.maxValue(10_000, countText),
    ),
    128,
  ),
});

export type ServerConfig = v.InferOutput<typeof serverSchema>;

const configSchema = v.looseObject({
  mcpServers: v.custom<Record<string, unknown>>((value) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
  ),
});

type Ports = Pick<Settings, "CHROMADB_PORT">;

export type Servers = Map<string, ServerConfig>;

/** The servers if nothing is configured. */
export function defaultServers(
  home: HomePaths,
  settings: Ports,
): Record<string, v.InferInput<typeof serverSchema>> {
  return {
    "memory-bank": {
      command: "mcp-server-memory-bank",
      env: { MEMORY_BANK_ROOT: home.memorybank },
      port: 3001,
      isolation: "shared",
    },
    "sequential-thinking": {
      command: "mcp-server-sequential-thinking",
      port: 3002,
    },
    chroma: {
      command: "chroma-mcp",
      args: [
        ...["--client-type", "http", "--host", "127.0.0.1"],
        ...["--port", String(settings.CHROMADB_PORT), "--ssl", "false"],
      ],
      port: 3003,
      isolation: "shared",
    },
  };
}

/** The servers in config/mcp.json, or the default servers; throws on the first error. */
export function readServers(home: HomePaths, settings: Ports): Servers {
  const given = existsSync(home.mcpConfig)
    ? parseFile(home.mcpConfig).mcpServers
    : defaultServers(home, settings);
  return checkServers(given, settings);
}

/** Validates the servers; throws a `usage` Failure for the first error. */
export function checkServers(
  given: Record<string, unknown>,
  settings: Ports,
): Servers {
  const place = "config/mcp.json";
  const servers: Servers = new Map();
  const ports = new Map([[settings.CHROMADB_PORT, "ChromaDB"]]);
  for (const [name, value] of Object.entries(given)) {
    const server = checkServer(name, value, place);
    const { port } = server;
    const other = ports.get(port) ??
      (isSessionPort(port) ? sessionPorts : undefined);
    if (other !== undefined) {
      throw refusal(place, `${name} has the same port as ${other}, ${port}`);
    }
    ports.set(port, name);
    servers.set(name, server);
  }
  return servers;
}

/** Validates a server; throws a `usage` Failure that begins with `place`. */
export function checkServer(
  name: string,
  value: unknown,
  place: string,
): ServerConfig {
  const named = v.safeParse(serverName, name);
  if (!named.success) {
    throw refusal(place, `"${name}" ${named.issues[0].message}`);
  }
  const parsed = v.safeParse(serverSchema, value);
  if (!parsed.success) {
    throw refusal(place, faultOf(name, parsed.issues[0]));
  }
  const { command, url } = parsed.output;
  if (command === undefined && url === undefined) {
    throw refusal(place, `${name} needs a command or a url`);
  }
  if (parsed.output.api && url === undefined) {
    throw refusal(place, `${name}: "api" needs a url`);
  }
  if (command !== undefined && url !== undefined) {
    throw refusal(place, `${name} has a command and a url`);
  }
  return parsed.output;
}

/** `place` is the command or the file. */
function refusal(place: string, what: string): Failure {
  return new Failure("usage", `${place}: ${what}`, {
    hint: place === "mcp add"
      ? "See claudy mcp add --help."
      : "Correct the file, then check it: claudy mcp list",
  });
}

/** The error message, without the value, which may be a secret. */
function faultOf(
  name: string,
  issue: v.InferIssue<typeof serverSchema>,
): string {
  const path = v.getDotPath(issue);
  const where = path ? `${name}: "${path}"` : name;
  if (issue.type !== "strict_object") return `${where} ${issue.message}`;
  if (!path) return `${where} must be an object`;
  return issue.expected === "never"
    ? `${where} is not a known field`
    : `${where} is missing`;
}

/** Parses the whole file, including unknown fields. */
export function parseFile(
  path: string,
): v.InferOutput<typeof configSchema> {
  let json: unknown;
  try {
    // Reading a pipe may never end.
    if (!statSync(path).isFile()) throw new Error("It is not a file");
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const why = error instanceof SyntaxError
      ? "is not valid JSON"
      : "cannot be read";
    throw new Failure("usage", `config/mcp.json ${why}`, {
      hint: `Fix it, or remove it to use the default servers: ${path}`,
    });
  }
  const parsed = v.safeParse(configSchema, json);
  if (parsed.success) return parsed.output;
  throw new Failure("usage", "config/mcp.json has no mcpServers", {
    hint: `Fix it, or remove it to use the default servers: ${path}`,
  });
}

/** The path of a command; undefined if it is not found. */
export function findCommand(
  command: string,
  checkout: string,
  env: NodeJS.ProcessEnv,
): string | undefined {
  const places = isAbsolute(command) ? [command] : [
    ...moduleDirectories(checkout).map((directory) => join(directory, ".bin")),
    ...(env["PATH"] ?? "").split(delimiter).filter(isAbsolute),
  ].map((directory) => join(directory, command));
  return places.find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Expands ${NAME} and ${NAME:-default} like Claude does. Throws if a variable is not set
 * and has no default.
 * https://code.claude.com/docs/en/mcp#environment-variable-expansion-in-mcp-json
 */
export function expandServer(
  server: ServerConfig,
  env: NodeJS.ProcessEnv,
): ServerConfig {
  const expanded = (text: string) =>
    text.replaceAll(
      /\$\{(\w+)(?::-([^}]*))?\}/g,
      (_, name: string, fallback?: string) => {
        const value = env[name] ?? fallback;
        if (value === undefined) throw new Error(`${name} is not set`);
        return value;
      },
    );
  const each = (values: Record<string, string>) =>
    Object.fromEntries(
      Object.entries(values).map(([key, value]) => [key, expanded(value)]),
    );
  return {
    ...server,
    ...(server.command === undefined
      ? {}
      : { command: expanded(server.command) }),
    ...(server.url === undefined ? {} : { url: expanded(server.url) }),
    args: server.args.map(expanded),
    env: each(server.env),
    headers: each(server.headers),
  };
}
