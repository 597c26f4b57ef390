// Reads settings. Precedence: flag, environment, config/hal9000.conf, default.

import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import * as v from "valibot";
import { Failure, fileFailure, messageOf } from "../std/errors.ts";
import { didYouMean } from "../std/nearest.ts";
import { type Owner, writeAtomic } from "../std/owned.ts";
import { type HomePaths, homePaths } from "./paths.ts";
import {
  defaultRepository,
  definitions,
  type SettingName,
  type Settings,
} from "./settings.ts";

/** The text of a setting, and where it was set, for error messages. */
export interface Source {
  text: string;
  place: string;
}

/** HAL9000_HOME. It cannot be set in the file, because the file is below it. */
export function homeOf(env: NodeJS.ProcessEnv): string {
  const home = env["HAL9000_HOME"];
  if (!home) return join(env["HOME"] || homedir(), ".hal9000");
  if (!isAbsolute(home)) {
    throw new Failure(
      "usage",
      `HAL9000_HOME must be an absolute path, got "${home}"`,
      { hint: `Set it: export HAL9000_HOME=${resolve(home)}` },
    );
  }
  return resolve(home);
}

export function confPath(env: NodeJS.ProcessEnv): string {
  return homePaths(homeOf(env)).conf;
}

/** An effective setting and its source, for display. */
export interface ExplainedSetting {
  key: SettingName;
  text: string;
  /** "default", "environment", a flag, or a file and line. */
  place: string;
}

/** Settings from the command line. */
export type Flags = Partial<Record<SettingName, Source>>;

interface ReadOptions {
  flags?: Flags;
  /** Called for unknown keys in the file. */
  warn?: (line: string) => void;
}

/** All settings, validated. Throws a `usage` Failure that names the invalid setting. */
export function readSettings(
  env: NodeJS.ProcessEnv,
  options: ReadOptions = {},
): Settings {
  const settings: Record<string, unknown> = {};
  for (const [key, source] of sources(env, options)) {
    settings[key] = checkSetting(key, source);
  }
  return settings as Settings;
}

/** All settings with their sources, validated like readSettings(). */
export function explainSettings(
  env: NodeJS.ProcessEnv,
  options: ReadOptions = {},
): ExplainedSetting[] {
  return [...sources(env, options)].map(([key, source]) => {
    checkSetting(key, source);
    return { key, ...source };
  });
}

/** The texts of all settings for help; none if the file cannot be read. */
export function shownSettings(env: NodeJS.ProcessEnv): Map<string, string> {
  try {
    const found = [...sources(env, {})];
    return new Map(found.map(([key, { text }]) => [key, text]));
  } catch {
    return new Map(); // the command itself reports it
  }
}

/** All errors in the file and the environment, one sentence each. */
export function settingFaults(env: NodeJS.ProcessEnv): string[] {
  const faults: string[] = [];
  const warn = (line: string) => faults.push(line);
  for (const [key, source] of sources(env, { warn })) {
    try {
      checkSetting(key, source);
    } catch (error) {
      faults.push(messageOf(error));
    }
  }
  return faults;
}

/** A settings file that lists every key with its default, commented out. */
export function confTemplate(): string {
  const entries = Object.entries(definitions).map(
    ([key, { meaning, fallback }]) => `# ${meaning}.\n#${key}=${fallback}\n`,
  );
  return `# Settings of HAL-9000. Environment variables override this file.\n\n${
    entries.join("\n")
  }`;
}

/** Sets a value in the file, which keeps its other lines. Returns whether that changed it. */
export function writeSetting(
  { home, owner }: { home: HomePaths; owner: Owner },
  key: SettingName,
  value: string,
): boolean {
  // It may be a link, as to a repository of such files.
  const path = existsSync(home.conf) ? realpathSync(home.conf) : home.conf;
  const before = readConf(path) || confTemplate();
  const after = withSetting(before, key, value);
  if (after === before) return false;
  writeAtomic(path, after, owner);
  return true;
}

/** In place of the line that has the key, else after the comment that has it, else last. */
export function withSetting(text: string, key: string, value: string): string {
  const lines = text.split("\n");
  const line = `${key}=${value}`;
  const set = lines.findLastIndex((one) => parseLine(one)?.key === key);
  if (set !== -1) {
    if (parseLine(lines[set] ?? "")?.value === value) return text;
    return lines.with(set, line).join("\n");
  }
  const comment = lines.findLastIndex((one) => one.startsWith(`#${key}=`));
  const end = lines.at(-1) === "" ? lines.length - 1 : lines.length;
  const at = comment === -1 ? end : comment + 1;
  return [...lines.slice(0, at), line, ...lines.slice(at)].join("\n") +
    (at === lines.length ? "\n" : "");
}

/** The source of each setting: flag, environment, file or default. */
function sources(
  env: NodeJS.ProcessEnv,
  { flags = {}, warn }: ReadOptions,
): Map<SettingName, Source> {
  const path = confPath(env);
  const file = parseConf(readConf(path), path);
  for (const [key, { place }] of file) {
    if (!Object.hasOwn(definitions, key)) {
      const near = didYouMean(key, Object.keys(definitions));
      warn?.(`${place}: unknown setting ${key}. ${near}`.trimEnd());
    }
  }
  const found = new Map<SettingName, Source>();
  for (const key of Object.keys(definitions) as SettingName[]) {
    const fromEnv = env[key];
    found.set(
      key,
      flags[key] ??
        (fromEnv ? { text: fromEnv, place: "environment" } : file.get(key)) ??
        { text: fallbackOf(key, found), place: "default" },
    );
  }
  return found;
}

function fallbackOf(
  key: SettingName,
  found: Map<SettingName, Source>,
): string {
  return key === "HAL9000_IMAGE_REPO"
    ? defaultRepository(found.get("HAL9000_PREFIX")?.text ?? "")
    : definitions[key].fallback;
}

function checkSetting(key: SettingName, { text, place }: Source): unknown {
  const schema: v.GenericSchema<string, unknown> = definitions[key].schema;
  const result = v.safeParse(schema, text);
  if (result.success) return result.output;
  throw new Failure(
    "usage",
    // Users know a setting that they gave as a flag by the flag's name.
    `${place.startsWith("--") ? place : `${place}: ${key}`} ${
      result.issues[0].message
    }, got "${text}"`,
    { hint: settingHint(key, place) },
  );
}

/** For a flag, the command's own help is enough. */
function settingHint(key: string, place: string): string | undefined {
  if (place.startsWith("--")) return undefined;
  return place === "environment"
    ? `Correct the variable, or remove it: unset ${key}`
    : "Correct that line, then check all: claudy config check";
}

function readConf(path: string): string {
  try {
    // Reading a pipe or a device may never end.
    if (!statSync(path).isFile()) {
      throw new Failure("usage", `${path} is not a file`, {
        hint:
          `Move it away; the next start writes the file: mv ${path} ${path}.old`,
      });
    }
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof Failure) throw error;
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return "";
    const named = Object.assign(error as Error, { path, syscall: "read" });
    throw fileFailure(named) ??
      new Failure("failed", `Cannot read ${path}: ${messageOf(error)}`, {
        cause: error,
        hint: `Check its owner and mode: ls -l ${path}`,
      });
  }
}

/** Parses KEY=VALUE lines; blank lines and lines that begin with # are ignored. */
export function parseConf(text: string, path: string): Map<string, Source> {
  const found = new Map<string, Source>();
  const shown = join(basename(dirname(path)), basename(path));
  for (const [index, line] of text.split("\n").entries()) {
    const content = line.trim();
    if (content === "" || content.startsWith("#")) continue;
    const place = `${shown}:${index + 1}`;
    const setting = parseLine(content);
    if (!setting) {
      throw new Failure("usage", `${place}: must be KEY=VALUE`, {
        hint: "Correct that line, then check all: claudy config check",
      });
    }
    found.set(setting.key, { text: setting.value, place });
  }
  return found;
}

function parseLine(line: string): { key: string; value: string } | undefined {
  const [, key, value = ""] = /^([A-Za-z_]\w*)\s*=\s*(.*)$/.exec(line.trim()) ??
    [];
  return key === undefined
    ? undefined
    : { key, value: value.replace(/^(["'])(.*)\1$/, "$2") };
}
