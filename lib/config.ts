// Settings: flag, then environment, then config/hal9000.conf, then default.

import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join } from "node:path";
import { closest } from "fastest-levenshtein";
import * as v from "valibot";
import { Failure } from "./errors.ts";
import { parseSize, sizePattern } from "./units.ts";

const size = v.pipe(
  v.string(),
  v.regex(sizePattern, "must be a size such as 512m or 4g"),
  v.transform(parseSize),
);

const wholeNumber = (from: number, to: number) => {
  const message = `must be a whole number from ${from} to ${to}`;
  return v.pipe(
    v.string(),
    v.regex(/^\d+$/, message),
    v.transform(Number),
    v.minValue(from, message),
    v.maxValue(to, message),
  );
};

const cpus = v.pipe(
  v.string(),
  v.regex(/^\d+(\.\d+)?$/, "must be a number of CPUs such as 2 or 0.5"),
  v.transform(Number),
  v.minValue(0.01, "must be at least 0.01"),
);

const flag = v.pipe(
  v.picklist(["true", "false"], 'must be "true" or "false"'),
  v.transform((text) => text === "true"),
);

const absolutePaths = v.pipe(
  v.string(),
  v.transform((text) => text.split(":").filter((path) => path !== "")),
  v.check(
    (paths) => paths.length > 0 && paths.every(isAbsolute),
    "must be absolute paths with colons between",
  ),
);

const name = v.pipe(
  v.string(),
  v.regex(
    /^[a-z][a-z0-9-]{0,40}$/,
    "must be lower-case letters, digits and dashes, a letter first",
  ),
);

const imageName = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][\w.\-/:@]*$/, "must be the name of an image"),
);

/** Every setting: how it is checked, and its default as one would write it. */
const definitions = {
  HAL9000_PREFIX: { schema: name, fallback: "hal9000" },
  HAL9000_PARENT: { schema: v.string(), fallback: "" },
  HAL9000_IMAGE_REPO: {
    schema: imageName,
    fallback: "ghcr.io/hellblazer/hal-9000",
  },
  HAL9000_PROJECT_ROOTS: { schema: absolutePaths, fallback: homedir() },
  WORKER_IMAGE: { schema: v.union([v.literal(""), imageName]), fallback: "" },
  WORKER_MEMORY: { schema: size, fallback: "4g" },
  WORKER_CPUS: { schema: cpus, fallback: "2" },
  WORKER_PIDS_LIMIT: { schema: wholeNumber(1, 1_000_000), fallback: "100" },
  PARENT_MEMORY: { schema: size, fallback: "4g" },
  PARENT_CPUS: { schema: cpus, fallback: "2" },
  CHROMADB_PORT: { schema: wholeNumber(1, 65535), fallback: "8000" },
  ENABLE_POOL_MANAGER: { schema: flag, fallback: "false" },
  MIN_WARM_WORKERS: { schema: wholeNumber(0, 100), fallback: "2" },
  MAX_WARM_WORKERS: { schema: wholeNumber(0, 100), fallback: "5" },
  IDLE_TIMEOUT: { schema: wholeNumber(1, 86400), fallback: "300" },
  CHECK_INTERVAL: { schema: wholeNumber(1, 3600), fallback: "30" },
  SKIP_IMAGE_PULL: { schema: flag, fallback: "false" },
  LAZY_IMAGE_PULL: { schema: flag, fallback: "false" },
} as const;

type Definitions = typeof definitions;
export type SettingName = keyof Definitions;
export type Settings = {
  readonly [Key in SettingName]: v.InferOutput<Definitions[Key]["schema"]>;
};

/** A setting's text and where it was written, for the error that names it. */
interface Source {
  text: string;
  place: string;
}

/** HAL9000_HOME; not itself a setting of the file, which lies below it. */
export function homeOf(env: NodeJS.ProcessEnv): string {
  const home = env["HAL9000_HOME"];
  if (!home) return join(env["HOME"] || homedir(), ".hal9000");
  if (!isAbsolute(home)) {
    throw new Failure(
      "usage",
      `HAL9000_HOME must be an absolute path, got "${home}"`,
    );
  }
  return home.replace(/(.)\/+$/, "$1");
}

/**
 * All settings, checked. `warn` hears of keys in the file that are none.
 * Throws a `usage` Failure that names the place of a bad value.
 */
export function readSettings(
  env: NodeJS.ProcessEnv,
  options: {
    flags?: Partial<Record<SettingName, Source>>;
    warn?: (line: string) => void;
  } = {},
): Settings {
  const path = join(homeOf(env), "config", "hal9000.conf");
  const file = parseConf(readConf(path), path);
  for (const [key, { place }] of file) {
    if (!(key in definitions)) {
      const near = closest(key, Object.keys(definitions));
      options.warn?.(`${place}: unknown setting ${key}; did you mean ${near}?`);
    }
  }
  const settings: Record<string, unknown> = {};
  for (const [key, { schema, fallback }] of Object.entries(definitions)) {
    const fromEnv = env[key];
    const source = options.flags?.[key as SettingName] ??
      (fromEnv ? { text: fromEnv, place: "environment" } : file.get(key));
    settings[key] = checkSetting(key, schema, source, fallback);
  }
  return settings as Settings;
}

function checkSetting(
  key: string,
  schema: v.GenericSchema<string, unknown>,
  source: Source | undefined,
  fallback: string,
): unknown {
  const result = v.safeParse(schema, source?.text ?? fallback);
  if (result.success) return result.output;
  throw new Failure(
    "usage",
    `${source?.place ?? "default"}: ${key} ${
      result.issues[0].message
    }, got "${source?.text}"`,
  );
}

function readConf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw new Failure("failed", `Cannot read ${path}`, { cause: error });
  }
}

/** KEY=VALUE lines; blank lines and lines that begin with # say nothing. */
function parseConf(text: string, path: string): Map<string, Source> {
  const found = new Map<string, Source>();
  const shown = join(basename(dirname(path)), basename(path));
  for (const [index, line] of text.split("\n").entries()) {
    const content = line.trim();
    if (content === "" || content.startsWith("#")) continue;
    const place = `${shown}:${index + 1}`;
    const match = /^([A-Za-z_]\w*)\s*=\s*(.*)$/.exec(content);
    if (!match) {
      throw new Failure("usage", `${place}: must be KEY=VALUE`);
    }
    const value = (match[2] ?? "").replace(/^(["'])(.*)\1$/, "$2");
    found.set(match[1] ?? "", { text: value, place });
  }
  return found;
}
