// Reviews a project's own Claude configuration. Its settings, hooks and MCP servers can
// run programs and send data as soon as Claude starts. The authors of the repository wrote
// them, so they take effect only after the user has approved exactly this content.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import * as v from "valibot";
import { gitPrograms } from "./git-programs.ts";
import { type HostView, isWithin } from "../std/hostpath.ts";
import { isTooComplex, parseJson } from "../std/json.ts";
import { entriesOf, readPlain, Unreviewable } from "../std/plain-below.ts";

export interface ProjectConfig {
  /** SHA-256 of the names and contents of all its files. */
  digest: string;
  /** Lines that describe it to the user; what runs programs comes first. */
  summary: string[];
  /** Number of lines about what runs programs; these are always shown. */
  running: number;
  /** Variables and settings that a project must not set; they are overridden. */
  forbidden: string[];
  /**
   * Whether git runs programs of the project, or may do so. Claude calls git when it
   * starts. Claude can ignore settings that are not approved, but git cannot.
   */
  gitPrograms: boolean;
  /** Why it cannot be reviewed, and therefore not approved. */
  fault: string | undefined;
}

/**
 * All files in it are reviewed, because each new version of Claude may read hooks, servers,
 * commands and tasks from other places in it.
 */
const directory = ".claude";
const settingsFiles = [".claude/settings.json", ".claude/settings.local.json"];
const serversFile = ".mcp.json";
/** Files that Claude reads as JSON; if one cannot be parsed, nothing can be approved. */
const jsonFiles = [
  ...settingsFiles,
  serversFile,
  ".claude/scheduled_tasks.json",
];
/** Not reviewed: Claude's worktrees, and its memory, which cannot run programs. */
const exempt = [".claude/worktrees", ".claude/CLAUDE.md"];

/** A project above these limits cannot be approved; files written by hand are smaller. */
const maxFileBytes = 4 * 1024 ** 2;
const maxTotalBytes = 16 * 1024 ** 2;
const maxEntries = 2000;
const maxShownLength = 200_000;
const maxDepth = 8;

/**
 * Variables that determine where Claude sends requests and with which credentials. There
 * are many, so they are forbidden by prefix, except those that only set a model or a limit,
 * or disable something else than a question or a policy.
 */
const forbiddenVariable =
  /^(ANTHROPIC_|AWS_|BUN_|CLAUDE_|CLOUD_ML_|GOOGLE_|NODE_|OTEL_|VERTEX_)|_PROXY$/;
const harmlessVariable =
  /^(ANTHROPIC_([A-Z0-9_]+_)?MODEL|CLAUDE_CODE_(MAX_|DISABLE_(?!\w*(ADMIN|PERMISSION|POLICY|_RM_))|SUBAGENT_MODEL|EFFORT)\w*|CLAUDE_BASH_\w+|NODE_ENV)$/;

export function isForbiddenVariable(name: string): boolean {
  const upper = name.toUpperCase();
  return forbiddenVariable.test(upper) && !harmlessVariable.test(upper);
}

/** Undefined if the project has no configuration. */
export function readProjectConfig(
  project: string,
  { mount, roots }: HostView,
): ProjectConfig | undefined {
  let git: Map<string, Buffer> | undefined;
  const faulty = (fault: string): ProjectConfig => ({
    digest: "",
    summary: [],
    running: 0,
    forbidden: [],
    gitPrograms: git?.size !== 0, // true if unknown
    fault,
  });
  if (roots && !roots.some((root) => isWithin(project, root))) {
    return faulty("the project is not mounted in the parent");
  }
  const files = new Map<string, Buffer>();
  try {
    git = gitPrograms(project, mount);
    collect(mount + project, files);
  } catch (error) {
    if (error instanceof Unreviewable) return faulty(error.message);
    throw error;
  }
  if (git.size + files.size === 0) return undefined;
  const hash = createHash("sha256");
  for (const [name, bytes] of [...git, ...files]) {
    hash.update(`${name.length} ${name} ${bytes.length} `).update(bytes);
  }
  const described = describe(git, files);
  if (described.fault) return faulty(described.fault);
  const { lines, forbidden } = described;
  if (lines.join("").length > maxShownLength) {
    return faulty("its description is too long to be reviewed");
  }
  return {
    digest: hash.digest("hex"),
    summary: lines,
    running: described.running,
    forbidden,
    gitPrograms: git.size > 0,
    fault: undefined,
  };
}

/** Reads all relevant files in a fixed order. */
function collect(root: string, files: Map<string, Buffer>): void {
  let entries = 0;
  let total = 0;
  const add = (name: string, listed: boolean) => {
    const bytes = readPlain(root, name, maxFileBytes);
    if (!bytes && listed) throw new Unreviewable(`${name} cannot be opened`);
    if (!bytes) return;
    total += bytes.length;
    if (total > maxTotalBytes) {
      throw new Unreviewable("its files are too large");
    }
    // Files that are empty or contain only {} need no approval.
    if (bytes.length < 100 && /^\s*(\{\s*\}\s*)?$/.test(bytes.toString())) {
      return;
    }
    files.set(name, bytes);
  };
  const addBelow = (name: string, depth = 0) => {
    for (const entry of entriesOf(root, name, maxEntries)) {
      if (++entries > maxEntries) {
        throw new Unreviewable("it has too many files");
      }
      const inner = `${name}/${entry.name}`;
      if (exempt.includes(inner)) continue;
      if (!entry.isDirectory()) add(inner, true);
      else if (depth < maxDepth) addBelow(inner, depth + 1);
      else throw new Unreviewable(`${inner} is nested too deeply`);
    }
  };
  add(serversFile, false);
  addBelow(directory);
}

interface Described {
  lines: string[];
  running: number;
  forbidden: string[];
  fault?: string;
}

/** Describes the configuration to the user; what runs programs comes first. */
function describe(
  git: Map<string, Buffer>,
  files: Map<string, Buffer>,
): Described {
  const running = [...git].map(([name, bytes]) =>
    `${name}: ${shown(bytes.toString().trim())}`
  );
  const other: string[] = [];
  const forbidden = new Set<string>();
  const counts = new Map<string, number>();
  for (const [name, bytes] of files) {
    // The decoder drops a byte order mark, as Claude does.
    const text = new TextDecoder().decode(bytes);
    const value = name.endsWith(".json") ? parseObject(text) : undefined;
    if (!value && isReadAtStart(name)) {
      return {
        lines: [],
        running: 0,
        forbidden: [],
        fault: `${name} is not valid JSON`,
      };
    }
    const { hooks, mcpServers, ...rest } = value ?? {};
    running.push(...hookLines(name, hooks));
    running.push(...serverLines(name, mcpServers));
    if (settingsFiles.includes(name)) {
      for (const [key, setting] of Object.entries(rest)) {
        const runs = setsPrograms(key, setting);
        (runs ? running : other).push(
          `${name}: ${key} ${shown(setting, runs ? Infinity : 400)}`,
        );
      }
      for (const key of forbiddenIn(rest)) forbidden.add(key);
    } else if (isReadAtStart(name) || runsPrograms(rest)) {
      const isServers = name.endsWith(serversFile);
      if (isServers) running.push(...serverLines(name, rest));
      else if (Object.keys(rest).length > 0) {
        running.push(`${name}: ${shown(rest)}`);
      }
    } else if (name.endsWith(".json") && !value) {
      running.push(`${name}: not valid JSON; its content is not shown`);
    } else if (/\.md$/i.test(name) && isUnusual(frontMatter(text))) {
      running.push(`${name}: ${shown(frontMatter(text))}`);
    } else {
      const group = name.split("/").slice(0, 3).join("/");
      counts.set(group, (counts.get(group) ?? 0) + 1);
    }
  }
  for (const [group, count] of counts) {
    const many = count === 1 ? "1 file" : `${count} files`;
    other.push(files.has(group) ? group : `${group}: ${many}`);
  }
  return {
    lines: [...running, ...other],
    running: running.length,
    forbidden: [...forbidden],
  };
}

function forbiddenIn(settings: Record<string, unknown>): string[] {
  return [
    ...Object.keys(objectOr(settings["env"])).filter(isForbiddenVariable),
    ...Object.keys(settings).filter((key) => credentialHelpers.includes(key)),
  ];
}

/** Whether a setting determines what runs, or with which permissions. */
export function setsPrograms(key: string, setting: unknown): boolean {
  return key === "hooks" || executionSettings.includes(key) ||
    runsPrograms(setting);
}

/** Whether a file of agents, commands or skills may define a hook, server or program. */
export function mayRunPrograms(name: string, bytes: Uint8Array): boolean {
  const text = new TextDecoder().decode(bytes);
  if (/\.md$/i.test(name)) return isUnusual(frontMatter(text));
  if (!/\.json$/i.test(name)) return false;
  const value = parseObject(text);
  return !value || isReadAtStart(name) || runsPrograms(value);
}

/** Whether Claude reads this JSON file when it starts, including files of plugins. */
function isReadAtStart(name: string): boolean {
  return jsonFiles.includes(name) ||
    /(^|\/)(hooks|plugin|\.mcp|\.lsp)\.json$/.test(name);
}

/** Settings whose value is a command that returns credentials. */
export const credentialHelpers = [
  "apiKeyHelper",
  "awsAuthRefresh",
  "awsCredentialExport",
  "gcpAuthRefresh",
  "otelHeadersHelper",
  "proxyAuthHelper",
];

/** Settings that determine what may run, and with which permissions; shown completely. */
const executionSettings = [
  ...credentialHelpers,
  "enabledPlugins",
  "env",
  "extraKnownMarketplaces",
  "permissions",
  "sandbox",
];

const programKeys =
  /^(commands?|hooks|mcpServers|lspServers|monitors|url|headersHelper)$/;

/** Whether it contains, at any depth, a key that may define a program or a server. */
function runsPrograms(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).some(([key, inner]) =>
    programKeys.test(key) || runsPrograms(inner)
  );
}

/** The text between the two lines of dashes; up to the end if the second is missing. */
function frontMatter(text: string): string {
  const [before, ...rest] = text.split(/^---.*$/m);
  return before?.trim() === "" ? rest[0]?.trim() ?? "" : "";
}

/** Usual keys of agents, skills and commands, one per line. */
const usualKey =
  /^(name|description|model|color|tools|disallowedTools|allowed-tools|argument-hint|license|version|disable-model-invocation|user-invocable):/;

/** Whether it may contain other keys, such as hooks, in any YAML notation. */
function isUnusual(frontMatter: string): boolean {
  const lines = frontMatter.split(/[\n\r\u0085\u2028\u2029]/)
    .filter((line) => line.trim() !== "");
  // Indented lines belong to the line above.
  return lines.some((line, at) =>
    !usualKey.test(line) && !(at > 0 && /^( |- )/.test(line))
  );
}

/** Shows hooks completely, because an omitted part could be the dangerous one. */
function hookLines(name: string, hooks: unknown): string[] {
  // A plugin may contain the name of a file instead.
  if (typeof hooks === "string" || Array.isArray(hooks)) {
    return [`${name}: hooks ${shown(hooks)}`];
  }
  return Object.entries(objectOr(hooks)).flatMap(([event, matchers]) =>
    (Array.isArray(matchers) ? matchers : [matchers]).map((matcher) =>
      `${name}: hook ${event} ${shown(matcher)}`
    )
  );
}

function serverLines(name: string, servers: unknown): string[] {
  if (typeof servers === "string" || Array.isArray(servers)) {
    return [`${name}: servers ${shown(servers)}`];
  }
  return Object.entries(objectOr(servers)).map(([server, value]) =>
    `${name}: server ${server} ${shown(value)}`
  );
}

/** JSON with whitespace collapsed, so that spaces cannot move text out of view. */
function shown(value: unknown, maxLength = Infinity): string {
  const text = JSON.stringify(value)
    // Keep an escaped backslash: in \\n, the n is not part of an escape.
    .replace(
      /\\\\|(\s|\\[nrtfb])+/g,
      (found) => found === "\\\\" ? found : " ",
    );
  const rest = text.length - maxLength;
  return rest > 0 ? `${text.slice(0, maxLength)}... (${rest} more)` : text;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  if (isTooComplex(text)) return undefined;
  return parseJson(v.record(v.string(), v.unknown()), text);
}

function objectOr(value: unknown): Record<string, unknown> {
  return v.is(v.record(v.string(), v.unknown()), value) ? value : {};
}
