// config/mcp.json: the host's MCP servers that workers may use, in the shape that
// the ecosystem has for them, with what a gateway needs besides.

import {
  accessSync,
  constants,
  existsSync,
  readFileSync,
  statSync,
} from "node:fs";
import { delimiter, isAbsolute, join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import { isLocalUrl } from "../std/local-url.ts";
import type { HomePaths } from "../instance/paths.ts";
import { isSessionPort, sessionPorts } from "../instance/port-range.ts";
import type { Settings } from "../instance/settings.ts";
import { parseSize, sizePattern } from "../std/units.ts";

/** What other things are called, here and in JavaScript. */
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
  v.check((name) => !reserved.includes(name), "is the name of something else"),
);

const portText = "must be a port from 1024 to 65535";
const port = v.pipe(
  v.number(portText),
  v.integer(portText),
  v.minValue(1024, portText),
  v.maxValue(65535, portText),
);

const text = v.string("must be text");
const texts = v.record(text, text, "must be names with texts");

const localUrl = v.pipe(
  text,
  v.check(
    (url) => url.includes("${") || isLocalUrl(url),
    "must be the URL of a server on this host; others need no gateway",
  ),
);

const seconds = "must be a number of seconds from 1 to 86400";

const memoryText = "must be a size such as 512m or 2g, of 64m at least";
const countText = "must be a whole number from 1 to 10000";
const minMemoryBytes = 64 * 1024 ** 2;

const serverSchema = v.strictObject({
  /** As Claude writes it down; what it says is known without it. */
  type: v.optional(
    v.picklist(["stdio", "http"], 'must be "stdio" or "http"'),
  ),
  /** A program: absolute, of this checkout's packages, or on PATH. */
  command: v.optional(text),
  args: v.optional(v.array(text, "must be a list of texts"), []),
  env: v.optional(texts, {}),
  /** In the place of a command: a server that listens on the host already. */
  url: v.optional(localUrl),
  headers: v.optional(texts, {}),
  /** On 127.0.0.1 of the workers. */
  port,
  /** "session": a process for each client; "shared": one for all. */
  isolation: v.optional(
    v.picklist(["session", "shared"], 'must be "session" or "shared"'),
    "session",
  ),
  /** Seconds before a client that is silent is forgotten. */
  idleTimeout: v.optional(
    v.pipe(
      v.number(seconds),
      v.minValue(1, seconds),
      v.maxValue(86_400, seconds),
    ),
    300,
  ),
  /** Of the processes that one worker has of it, or of the one that all share. */
  memory: v.optional(
    v.pipe(
      v.string(memoryText),
      v.regex(sizePattern, memoryText),
      v.check((size) => parseSize(size) >= minMemoryBytes, memoryText),
    ),
    "2g",
  ),
  /** How many these may be, with all that they start. */
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

/** What there is where nothing was configured. */
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

/** The servers of config/mcp.json, else the default ones; throws on the first fault. */
export function readServers(home: HomePaths, settings: Ports): Servers {
  const given = existsSync(home.mcpConfig)
    ? parseFile(home.mcpConfig).mcpServers
    : defaultServers(home, settings);
  return checkServers(given, settings);
}

/** Throws a `usage` Failure for the first fault. */
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
      throw new Failure(
        "usage",
        `${place}: ${name} has the same port as ${other}, ${port}`,
      );
    }
    ports.set(port, name);
    servers.set(name, server);
  }
  return servers;
}

/** Throws a `usage` Failure that names the place. */
export function checkServer(
  name: string,
  value: unknown,
  place: string,
): ServerConfig {
  const named = v.safeParse(serverName, name);
  if (!named.success) {
    throw new Failure(
      "usage",
      `${place}: "${name}" ${named.issues[0].message}`,
    );
  }
  const parsed = v.safeParse(serverSchema, value);
  if (!parsed.success) {
    throw new Failure("usage", `${place}: ${faultOf(name, parsed.issues[0])}`);
  }
  const { command, url } = parsed.output;
  if (command === undefined && url === undefined) {
    throw new Failure("usage", `${place}: ${name} needs a command or a url`);
  }
  if (command !== undefined && url !== undefined) {
    throw new Failure("usage", `${place}: ${name} has a command and a url`);
  }
  return parsed.output;
}

/** Never with what was given: it may be a secret. */
function faultOf(
  name: string,
  issue: v.InferIssue<typeof serverSchema>,
): string {
  const path = v.getDotPath(issue);
  const where = path ? `${name}: "${path}"` : name;
  if (issue.type !== "strict_object") return `${where} ${issue.message}`;
  if (!path) return `${where} must be an object`;
  return issue.expected === "never"
    ? `${where} is no field of a server`
    : `${where} is missing`;
}

/** The whole file; what is not for us is left as it is. */
export function parseFile(
  path: string,
): v.InferOutput<typeof configSchema> {
  let json: unknown;
  try {
    // A pipe would never end.
    if (!statSync(path).isFile()) throw new Error("It is no file");
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const why = error instanceof SyntaxError ? "is no JSON" : "cannot be read";
    throw new Failure("usage", `config/mcp.json ${why}`, {
      hint: `Mend it, or remove it for the default servers: ${path}`,
    });
  }
  const parsed = v.safeParse(configSchema, json);
  if (parsed.success) return parsed.output;
  throw new Failure("usage", "config/mcp.json has no mcpServers");
}

/** Where a command is, undefined where it is not to be had. */
export function findCommand(
  command: string,
  checkout: string,
  env: NodeJS.ProcessEnv,
): string | undefined {
  const places = isAbsolute(command) ? [command] : [
    join(checkout, "node_modules", ".bin"),
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
 * A server with ${NAME} and ${NAME:-default} replaced, as Claude reads its own list.
 * Throws where one is not set.
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
