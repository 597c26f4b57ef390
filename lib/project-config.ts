// A project's own configuration of Claude: settings, hooks and MCP servers run programs
// and send data as soon as Claude starts. Whoever wrote the repository wrote them, so
// they take effect only after the user has approved exactly this content.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  opendirSync,
  openSync,
  readFileSync,
  readSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { type HostView, isWithin } from "./hostpath.ts";
import type { Instance } from "./instance.ts";
import { isTooMuch } from "./json-bounds.ts";
import type { Log } from "./log.ts";
import { writeWhole } from "./owned.ts";
import { printable } from "./text.ts";

export interface ProjectConfig {
  /** SHA-256 of the names and contents of all its files. */
  digest: string;
  /** What it does, a line each, for the person who is asked. */
  summary: string[];
  /** Variables in its settings that no project may set; they are overridden. */
  forbidden: string[];
  /** Why it cannot be judged, and so not be approved. */
  fault: string | undefined;
}

/**
 * All below it counts: Claude finds hooks, servers, commands and tasks in more places
 * there, with every version, than could be listed here.
 */
const directory = ".claude";
const settingsFiles = [".claude/settings.json", ".claude/settings.local.json"];
const serversFile = ".mcp.json";
/** Files that Claude reads as JSON; one that we cannot read cannot be judged. */
const jsonFiles = [
  ...settingsFiles,
  serversFile,
  ".claude/scheduled_tasks.json",
];
/** But not these: checkouts of Claude's own, and memory, which only informs. */
const exempt = [".claude/worktrees", ".claude/CLAUDE.md"];

/** More than people write by hand; a project with more is not judged. */
const maxFileBytes = 4 * 1024 ** 2;
const maxTotalBytes = 16 * 1024 ** 2;
const maxEntries = 2000;
const maxShownLength = 200_000;
const maxDepth = 8;

/**
 * Variables that decide where Claude's requests go and what they are signed with.
 * Claude has many of them, so whole families are refused, but for those that only
 * choose a model or a limit.
 */
const forbiddenVariable =
  /^(ANTHROPIC_|AWS_|BUN_|CLAUDE_|CLOUD_ML_|GOOGLE_|NODE_|OTEL_|VERTEX_)|_PROXY$/;
const harmlessVariable =
  /^(ANTHROPIC_([A-Z0-9_]+_)?MODEL|CLAUDE_CODE_(MAX_|DISABLE_|SUBAGENT_MODEL|EFFORT)\w*|CLAUDE_BASH_\w+|NODE_ENV)$/;

export function isForbiddenVariable(name: string): boolean {
  const upper = name.toUpperCase();
  return forbiddenVariable.test(upper) && !harmlessVariable.test(upper);
}

/** Undefined where the project configures nothing. */
export function readProjectConfig(
  project: string,
  { mount, roots }: HostView,
): ProjectConfig | undefined {
  if (roots && !roots.some((root) => isWithin(project, root))) {
    return withFault("the parent does not see the project");
  }
  const files = new Map<string, Buffer>();
  try {
    collect(mount + project, files);
  } catch (error) {
    if (error instanceof Unjudged) return withFault(error.message);
    throw error;
  }
  if (files.size === 0) return undefined;
  const hash = createHash("sha256");
  for (const [name, bytes] of files) {
    hash.update(`${name.length} ${name} ${bytes.length} `).update(bytes);
  }
  const described = describe(files);
  if (described.fault) return withFault(described.fault);
  const { lines, forbidden } = described;
  if (lines.join("").length > maxShownLength) {
    return withFault("what it runs is too long to be read");
  }
  return {
    digest: hash.digest("hex"),
    summary: lines,
    forbidden,
    fault: undefined,
  };
}

function withFault(fault: string): ProjectConfig {
  return { digest: "", summary: [], forbidden: [], fault };
}

class Unjudged extends Error {}

/** Reads all files that count, in an order of their own. */
function collect(root: string, files: Map<string, Buffer>): void {
  let entries = 0;
  let total = 0;
  const add = (name: string) => {
    const bytes = readPlain(root, name, maxFileBytes);
    if (!bytes) return;
    total += bytes.length;
    if (total > maxTotalBytes) throw new Unjudged("there is too much of it");
    // What says nothing need not be asked about.
    if (bytes.length < 100 && /^\s*(\{\s*\}\s*)?$/.test(bytes.toString())) {
      return;
    }
    files.set(name, bytes);
  };
  const addBelow = (name: string, depth = 0) => {
    for (const entry of entriesOf(root, name)) {
      if (++entries > maxEntries) throw new Unjudged("it has too many files");
      const inner = `${name}/${entry.name}`;
      if (exempt.includes(inner)) continue;
      if (!entry.isDirectory()) add(inner);
      else if (depth < maxDepth) addBelow(inner, depth + 1);
      else throw new Unjudged(`${inner} is too deep`);
    }
  };
  add(serversFile);
  addBelow(directory);
}

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = constants;

/**
 * A plain file below plain directories, undefined where there is none. A link could
 * lead elsewhere by the time Claude follows it, so nothing behind one is judged.
 */
export function readPlain(
  root: string,
  name: string,
  maxBytes: number,
): Buffer | undefined {
  if (!parentsArePlain(root, name)) return undefined;
  let file: number;
  try {
    file = openSync(join(root, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    return absent(error, name);
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new Unjudged(`${name} is not a file`);
    if (stat.size > maxBytes) throw new Unjudged(`${name} is too large`);
    const bytes = Buffer.alloc(Math.min(stat.size, maxBytes));
    return bytes.subarray(0, readSync(file, bytes));
  } finally {
    closeSync(file);
  }
}

function entriesOf(root: string, name: string) {
  if (!parentsArePlain(root, `${name}/x`)) return [];
  const directory = opendirSync(join(root, name));
  const entries = [];
  try {
    for (let entry; (entry = directory.readSync());) {
      entries.push(entry);
      if (entries.length > maxEntries) break;
    }
  } finally {
    directory.closeSync();
  }
  return entries.sort((a, b) => a.name < b.name ? -1 : 1);
}

/** Whether all directories above are there; throws where one is a link. */
function parentsArePlain(root: string, name: string): boolean {
  const parts = name.split("/").slice(0, -1);
  for (let count = 1; count <= parts.length; count++) {
    const directory = parts.slice(0, count).join("/");
    try {
      const flags = O_RDONLY | O_NOFOLLOW | O_DIRECTORY;
      closeSync(openSync(join(root, directory), flags));
    } catch (error) {
      absent(error, directory);
      return false;
    }
  }
  return true;
}

function absent(error: unknown, name: string): undefined {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return undefined;
  const reason: Record<string, string> = {
    ELOOP: "is a link",
    ENOTDIR: "is a link or not a directory",
    EACCES: "cannot be read",
    ENXIO: "is not a file",
  };
  throw new Unjudged(`${name} ${reason[code ?? ""] ?? code}`);
}

interface Described {
  lines: string[];
  forbidden: string[];
  fault?: string;
}

/** What runs programs stands first: it is what the person should see. */
function describe(files: Map<string, Buffer>): Described {
  const running: string[] = [];
  const other: string[] = [];
  const forbidden = new Set<string>();
  const counts = new Map<string, number>();
  for (const [name, bytes] of files) {
    // The decoder drops a byte order mark, as Claude does.
    const value = name.endsWith(".json")
      ? parseObject(new TextDecoder().decode(bytes))
      : undefined;
    if (!value && jsonFiles.includes(name)) {
      return { lines: [], forbidden: [], fault: `${name} is not valid JSON` };
    }
    const { hooks, mcpServers, ...rest } = value ?? {};
    running.push(...hookLines(name, hooks));
    // A plugin's file has the servers themselves.
    const isBare = name.endsWith(`/${serversFile}`) && !mcpServers;
    running.push(...serverLines(name, isBare ? rest : mcpServers));
    if (settingsFiles.includes(name)) {
      for (const [key, setting] of Object.entries(rest)) {
        other.push(`${name}: ${key} ${shown(setting)}`);
      }
      for (const key of forbiddenIn(rest)) forbidden.add(key);
    } else if (jsonFiles.includes(name)) {
      if (name !== serversFile) running.push(`${name}: ${shown(value)}`);
    } else {
      const group = name.split("/").slice(0, 3).join("/");
      counts.set(group, (counts.get(group) ?? 0) + 1);
    }
  }
  for (const [group, count] of counts) {
    const many = count === 1 ? "1 file" : `${count} files`;
    other.push(files.has(group) ? group : `${group}: ${many}`);
  }
  return { lines: [...running, ...other], forbidden: [...forbidden] };
}

function forbiddenIn(settings: Record<string, unknown>): string[] {
  return [
    ...Object.keys(objectOr(settings["env"])).filter(isForbiddenVariable),
    ...Object.keys(settings).filter((key) => credentialHelpers.includes(key)),
  ];
}

/** Settings whose value is a command that signs in. */
export const credentialHelpers = [
  "apiKeyHelper",
  "awsAuthRefresh",
  "awsCredentialExport",
  "gcpAuthRefresh",
  "otelHeadersHelper",
  "proxyAuthHelper",
];

/** Whole, each with all that it is given: what is left out could be what matters. */
function hookLines(name: string, hooks: unknown): string[] {
  return Object.entries(objectOr(hooks)).flatMap(([event, matchers]) =>
    (Array.isArray(matchers) ? matchers : [matchers]).map((matcher) =>
      `${name}: hook ${event} ${shown(matcher, Infinity)}`
    )
  );
}

function serverLines(name: string, servers: unknown): string[] {
  return Object.entries(objectOr(servers)).map(([server, value]) =>
    `${name}: server ${server} ${shown(value, Infinity)}`
  );
}

/** Without blanks and line breaks in which a part could hide. */
function shown(value: unknown, most = 400): string {
  const text = JSON.stringify(value).replace(/(\s|\\[nrtfb])+/g, " ");
  const rest = text.length - most;
  return rest > 0 ? `${text.slice(0, most)}... (${rest} more)` : text;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    if (isTooMuch(text)) return undefined;
    return v.parse(v.record(v.string(), v.unknown()), JSON.parse(text));
  } catch {
    return undefined;
  }
}

function objectOr(value: unknown): Record<string, unknown> {
  return v.is(v.record(v.string(), v.unknown()), value) ? value : {};
}

const approvalSchema = v.object({
  version: v.literal(1),
  project: v.string(),
  digest: v.string(),
});

type Home = Pick<Instance, "home" | "owner">;

/** Whether the user has approved this content of this project. */
export function isApproved(
  { home }: Pick<Instance, "home">,
  project: string,
  { digest, fault }: ProjectConfig,
): boolean {
  if (fault !== undefined) return false;
  try {
    const text = readFileSync(home.approval(project), "utf8");
    const approval = v.parse(approvalSchema, JSON.parse(text));
    return approval.project === project && approval.digest === digest;
  } catch {
    return false; // not approved yet, or a record that cannot be read
  }
}

/** Keeps the approval outside of the project, where no worker can write. */
export function approve(
  { home, owner }: Home,
  project: string,
  { digest }: ProjectConfig,
): void {
  const approval = { version: 1, project, digest };
  writeWhole(home.approval(project), JSON.stringify(approval), owner);
}

/** Whether a project's own configuration takes effect, and what it must not set. */
export interface ConfigVerdict {
  approved: boolean;
  forbidden: string[];
}

/**
 * Judges it before Claude starts. `ask` gives whether the user approves it now; what
 * is not in effect is reported to `log`.
 */
export async function judgeProjectConfig(
  instance: Home & Pick<Instance, "host">,
  project: string,
  ask: (config: ProjectConfig) => Promise<boolean>,
  log: Log,
): Promise<ConfigVerdict> {
  const config = readProjectConfig(project, instance.host);
  // Files may be added while Claude runs, and those are not approved.
  if (!config) return { approved: false, forbidden: [] };
  const { fault, forbidden } = config;
  let approved = isApproved(instance, project, config);
  if (!approved && fault === undefined && await ask(config)) {
    approve(instance, project, config);
    approved = true;
  }
  if (fault !== undefined) {
    log(
      `warning: ${project}'s own Claude configuration is not in effect: ${fault}`,
    );
  } else if (!approved) {
    log(
      `warning: ${project}'s own Claude configuration is not in effect: nobody has approved it`,
    );
    log(
      "Approve it with --trust-project, or open the session at a terminal. It has:",
    );
    for (const line of shortened(config.summary)) log(`  ${line}`);
  } else if (forbidden.length > 0) {
    log(
      `warning: ${project} sets ${
        forbidden.join(", ")
      }, which a project must not; it has no effect`,
    );
  }
  return { approved, forbidden };
}

const maxLines = 40;

/** As many lines as a person reads before answering. */
export function shortened(lines: string[]): string[] {
  const rest = lines.length - maxLines;
  const first = lines.slice(0, maxLines).map(printable);
  return rest > 0
    ? [...first, `... and ${rest} more: read them before you approve them`]
    : first;
}
