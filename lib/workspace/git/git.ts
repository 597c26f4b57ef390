// Runs git with a configuration of our own: neither that of a user nor that of a system is
// read, no hook, filter or monitor is run, and no other host is reached.

import { Buffer } from "node:buffer";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  createReadStream,
  createWriteStream,
  mkdirSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { pipeline } from "node:stream/promises";
import { Failure } from "../../std/errors.ts";
import { binarySize } from "../../std/units.ts";

/** What overrides the configuration of a repository. */
const overrides: [key: string, value: string][] = [
  ["safe.directory", "*"],
  ["core.hooksPath", "/dev/null"],
  ["core.fsmonitor", "false"],
  ["core.attributesFile", "/dev/null"],
  ["core.excludesFile", "/dev/null"],
  ["core.untrackedCache", "false"],
  ["protocol.allow", "never"],
  // The user's file system may ignore such characters.
  ["core.protectHFS", "true"],
  ["core.protectNTFS", "true"],
  ["gc.auto", "0"],
  ["maintenance.auto", "false"],
  ["submodule.recurse", "false"],
  ["diff.ignoreSubmodules", "dirty"],
  ["advice.addEmbeddedRepo", "false"],
  ["commit.gpgSign", "false"],
  ["pack.threads", "1"],
  ["pack.windowMemory", "64m"],
  // Larger ones are read part by part.
  ["core.bigFileThreshold", "64m"],
  // Gives the pointer of a file that is stored with Git LFS, without git-lfs.
  ["filter.lfs.clean", pointerProgram()],
];

/**
 * A filter that reads a file and prints its pointer, see
 * https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
 */
export function pointerProgram(): string {
  // Without a copy: a sparse file would become a full one.
  return 'd=$(mktemp -d) && head -c 43 >"$d/head" && ' +
    "if grep -q '^version https://git-lfs.github.com/spec/v1' \"$d/head\"; " +
    'then cat "$d/head" -; else mkfifo "$d/all" && ' +
    '{ wc -c <"$d/all" >"$d/size" & ' +
    'id=$(cat "$d/head" - | tee "$d/all" | sha256sum | cut -c 1-64) && wait && ' +
    "printf 'version https://git-lfs.github.com/spec/v1\\n" +
    'oid sha256:%s\\nsize %s\\n\' "$id" "$(tr -d " " <"$d/size")"; }; fi; ' +
    'rm -rf "$d"';
}

/** Where git finds a repository. */
export interface Place {
  gitDir: string;
  /** The directory that worktrees share. @default gitDir */
  commonDir?: string | undefined;
  /** @default none */
  workTree?: string | undefined;
  index?: string | undefined;
  /** Where objects are written instead, with those of the repository as alternates. */
  objects?: string | undefined;
}

/**
 * More than git needs for an object that it has stored with its own settings, where files from
 * 512 MiB on are stored in another way.
 */
const maxAllocationBytes = 640 * 1024 ** 2;

/** The whole environment of git. */
function environment(
  { gitDir, commonDir, workTree, index, objects }: Place,
  config: Record<string, string>,
): NodeJS.ProcessEnv {
  const entries = [...overrides, ...Object.entries(config)];
  const variables = {
    PATH: process.env["PATH"],
    TMPDIR: process.env["TMPDIR"],
    HOME: "/nonexistent",
    LC_ALL: "C",
    TZ: process.env["TZ"],
    GIT_CONFIG_NOSYSTEM: "1",
    GIT_CONFIG_SYSTEM: "/dev/null",
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_ATTR_NOSYSTEM: "1",
    GIT_TERMINAL_PROMPT: "0",
    GIT_OPTIONAL_LOCKS: "0",
    GIT_NO_LAZY_FETCH: "1",
    GIT_NO_REPLACE_OBJECTS: "1",
    GIT_GRAFT_FILE: "/dev/null",
    GIT_ALLOC_LIMIT: `${maxAllocationBytes}`,
    GIT_DIR: gitDir,
    GIT_COMMON_DIR: commonDir,
    GIT_WORK_TREE: workTree,
    GIT_INDEX_FILE: index,
    ...(objects === undefined ? {} : {
      GIT_OBJECT_DIRECTORY: objects,
      GIT_ALTERNATE_OBJECT_DIRECTORIES: join(commonDir ?? gitDir, "objects"),
    }),
    GIT_CONFIG_COUNT: `${entries.length}`,
    ...Object.fromEntries(entries.flatMap(([key, value], at) => [
      [`GIT_CONFIG_KEY_${at}`, key],
      [`GIT_CONFIG_VALUE_${at}`, value],
    ])),
  };
  return Object.fromEntries(
    Object.entries(variables).filter(([, value]) => value !== undefined),
  );
}

export interface RunOptions {
  input?: string | { file: string; from: number };
  /** Writes the output to a file, instead of returning it. */
  output?: string;
  /** Exit codes that are no failure. @default only 0 */
  accept?: number[];
  cwd?: string;
  config?: Record<string, string>;
  env?: Record<string, string>;
  /** Of the output, also to a file. */
  maxBytes?: number;
  /** The error for more than `maxBytes`. */
  exceeded?: () => Failure;
  /** Gets what git prints on stderr, such as its progress. */
  onError?: (text: string) => void;
}

export interface Ran {
  exitCode: number;
  bytes: Buffer;
  readonly text: string;
}

const maxOutputBytes = 256 * 1024 ** 2;

/** Runs git in a place; throws a Failure with its last line of error. */
export async function run(
  place: Place,
  args: string[],
  options: RunOptions = {},
): Promise<Ran> {
  const { input = "", output, accept = [0], config = {} } = options;
  const child = spawn("git", args, {
    env: { ...environment(place, config), ...options.env },
    cwd: options.cwd ?? place.workTree ?? place.gitDir,
  });
  const ended = once(child, "close");
  child.stdin.on("error", () => {}); // it may end before it has read everything
  const fed = typeof input === "string"
    ? void child.stdin.end(input)
    : pipeline(
      createReadStream(input.file, { start: input.from }),
      child.stdin,
    ).catch(() => {});
  const errors: Buffer[] = [];
  child.stderr.on("data", (chunk: Buffer) => {
    errors.push(chunk);
    options.onError?.(String(chunk));
    if (errors.length > 100) errors.shift();
  });
  const chunks: Buffer[] = [];
  let bytes = 0;
  const limit = options.maxBytes ??
    (output === undefined ? maxOutputBytes : Infinity);
  child.stdout.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > limit) child.kill("SIGKILL");
    else if (output === undefined) chunks.push(chunk);
  });
  if (output !== undefined) {
    await pipeline(child.stdout, createWriteStream(output));
  }
  await fed;
  const [exitCode] = await ended as [number | null];
  if (bytes > limit) {
    throw options.exceeded?.() ??
      new GitFailed(args[0] ?? "", `more than ${binarySize(limit)}`);
  }
  if (exitCode === null) {
    throw new Failure(
      "resources",
      `git ${args[0]} was killed, perhaps for want of memory`,
    );
  }
  if (!accept.includes(exitCode)) {
    const lines = Buffer.concat(errors).toString("utf8").split(/[\r\n]+/)
      .filter((line) => line.trim() !== "");
    const why = lines.find((line) => /^(fatal|error):/.test(line)) ??
      lines.at(-1) ?? `exit code ${exitCode}`;
    throw new GitFailed(args[0] ?? "", why.slice(0, 500));
  }
  const all = Buffer.concat(chunks);
  return {
    exitCode,
    bytes: all,
    get text() {
      return all.toString("utf8");
    },
  };
}

/** A command of git that failed; the message is its own. */
export class GitFailed extends Failure {
  constructor(command: string, why: string) {
    const full = /No space left on device/.test(why);
    const large = /^fatal: attempting to allocate|Out of memory/.test(why);
    super(
      full ? "resources" : large ? "unsafe" : "failed",
      `git ${command}: ${why}`,
      large
        ? {
          hint: "An object, index or pattern file in it is too large to read.",
        }
        : {},
    );
  }
}

/** The output of a command without its last line break. */
export async function git(
  place: Place,
  args: string[],
  options: RunOptions = {},
): Promise<string> {
  return (await run(place, args, options)).text.replace(/\n$/, "");
}

/** The parts of an output that ends each with a null byte. */
export async function gitList(
  place: Place,
  args: string[],
  options: RunOptions = {},
): Promise<string[]> {
  return (await run(place, args, options)).text.split("\0").filter(Boolean);
}

export type Format = "sha1" | "sha256";

/** Creates an empty repository, without templates. */
export async function init(
  gitDir: string,
  { format, bare }: { format: Format; bare: boolean },
): Promise<void> {
  mkdirSync(gitDir, { recursive: true });
  const place = { gitDir };
  await run(place, [
    ...["init", "--quiet", "--bare", "--template="],
    `--object-format=${format}`,
  ]);
  // Not with --bare=false, which would store where its directory is now.
  if (!bare) await run(place, ["config", "core.bare", "false"]);
}

/**
 * Creates a bare repository that has the objects of another one, and nothing else of it. So
 * its configuration, hooks, references and grafts have no effect.
 */
export async function view(
  at: string,
  { objects, format, shallow }: {
    objects: string[];
    format: Format;
    /** Commits whose parents are missing. */
    shallow: string[];
  },
): Promise<Place> {
  await init(at, { format, bare: true });
  mkdirSync(join(at, "objects/info"), { recursive: true });
  writeFileSync(
    join(at, "objects/info/alternates"),
    objects.map((path) => `${path}\n`).join(""),
  );
  if (shallow.length > 0) {
    writeFileSync(join(at, "shallow"), shallow.map((id) => `${id}\n`).join(""));
  }
  return { gitDir: at };
}

/** Files that only speed git up, and could be forged. */
export const withoutCaches = {
  "core.commitGraph": "false",
  "core.multiPackIndex": "false",
  "pack.useBitmaps": "false",
};
