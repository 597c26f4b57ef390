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

const settingsFiles = [".claude/settings.json", ".claude/settings.local.json"];
const serversFile = ".mcp.json";
/** Programs that hooks and workflows run. */
const programDirectories = [".claude/hooks", ".claude/workflows"];
/** Markdown that counts only where its front matter runs something. */
const textDirectories = [
  ".claude/agents",
  ".claude/commands",
  ".claude/output-styles",
  ".claude/skills",
];
const activeFrontMatter = /^(hooks|mcpServers)\s*:/m;

/** More than people write by hand; a project with more is not judged. */
const maxFileBytes = 256 * 1024;
const maxTotalBytes = 2 * 1024 ** 2;
const maxEntries = 2000;
const maxDepth = 6;

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

/** Undefined where the project configures nothing that would have to be approved. */
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
  const parsed = [...files].map(([name, bytes]) => describe(name, bytes));
  return {
    digest: hash.digest("hex"),
    summary: parsed.flatMap(({ lines }) => lines),
    forbidden: [...new Set(parsed.flatMap(({ forbidden }) => forbidden))],
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
  const add = (name: string, counts: (text: string) => boolean) => {
    const bytes = readPlain(root, name);
    if (!bytes || !counts(bytes.toString("utf8"))) return;
    total += bytes.length;
    if (total > maxTotalBytes) throw new Unjudged("there is too much of it");
    files.set(name, bytes);
  };
  const addBelow = (
    name: string,
    counts: (text: string) => boolean,
    isWanted: (name: string) => boolean,
    depth = 0,
  ) => {
    for (const entry of entriesOf(root, name)) {
      if (++entries > maxEntries) throw new Unjudged("it has too many files");
      const inner = `${name}/${entry.name}`;
      if (entry.isDirectory()) {
        if (depth >= maxDepth) throw new Unjudged(`${inner} is too deep`);
        addBelow(inner, counts, isWanted, depth + 1);
      } else if (isWanted(entry.name)) add(inner, counts);
    }
  };
  const always = () => true;
  for (const name of [...settingsFiles, serversFile]) {
    add(name, (text) => !/^\s*(\{\s*\}\s*)?$/.test(text));
  }
  for (const name of programDirectories) addBelow(name, always, always);
  for (const name of textDirectories) {
    const isActive = (text: string) => activeFrontMatter.test(text);
    addBelow(name, isActive, (entry) => entry.endsWith(".md"));
  }
}

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK, O_DIRECTORY } = constants;

/**
 * A plain file below plain directories, undefined where there is none. A link could
 * lead elsewhere by the time Claude follows it, so nothing behind one is judged.
 */
export function readPlain(
  root: string,
  name: string,
  maxBytes = maxFileBytes,
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
}

function describe(name: string, bytes: Buffer): Described {
  const text = bytes.toString("utf8");
  if (!name.endsWith(".json") || name.startsWith(".claude/hooks/")) {
    const active = activeFrontMatter.exec(text)?.[1];
    const what = name.endsWith(".md") && active
      ? `sets ${active}`
      : "a program";
    return { lines: [`${name}: ${what}`], forbidden: [] };
  }
  const value = parseObject(text);
  if (!value) return { lines: [`${name}: not valid JSON`], forbidden: [] };
  if (name === serversFile) {
    return { lines: serverLines(value["mcpServers"]), forbidden: [] };
  }
  const env = objectOr(value["env"]);
  return {
    lines: Object.entries(value).flatMap(([key, setting]) =>
      key === "hooks"
        ? hookLines(name, setting)
        : [`${name}: ${key} ${clipped(setting)}`]
    ),
    forbidden: [
      ...Object.keys(env).filter(isForbiddenVariable),
      ...Object.keys(value).filter((key) => credentialHelpers.includes(key)),
    ],
  };
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

function hookLines(name: string, hooks: unknown): string[] {
  return Object.entries(objectOr(hooks)).map(([event, matchers]) =>
    `${name}: hook ${event} ${clipped(commandsIn(matchers))}`
  );
}

function commandsIn(value: unknown): unknown {
  const commands = JSON.stringify(value)
    .matchAll(/"(?:command|url|prompt)":("(?:[^"\\]|\\.)*")/g);
  const found = [...commands].map(([, text = ""]) => text).join(", ");
  return found === "" ? value : found;
}

function serverLines(servers: unknown): string[] {
  return Object.entries(objectOr(servers)).map(([name, server]) => {
    const { command = "", args = [], url = "" } = objectOr(server);
    const words = [command, url, ...(Array.isArray(args) ? args : [])];
    return `${serversFile}: server ${name}: ${
      clipped(words.filter(Boolean).join(" "))
    }`;
  });
}

function clipped(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
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
  if (!config) return { approved: true, forbidden: [] };
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

const maxLines = 12;

/** As many lines as a person reads before answering. */
export function shortened(lines: string[]): string[] {
  const rest = lines.length - maxLines;
  const shown = lines.slice(0, maxLines).map(printable);
  return rest > 0 ? [...shown, `... and ${rest} more`] : shown;
}
