// The claudy commands for sessions that work in a copy: fetch, diff, merge, pull.

import { spawn } from "node:child_process";
import { once } from "node:events";
import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { Failure } from "../std/errors.ts";
import { withoutGitPlaces } from "../std/git-env.ts";
import { printable, printableLines, shellQuoted } from "../std/text.ts";
import { parseSize, sizePattern } from "../std/units.ts";
import { diffCopy } from "../workspace/diff.ts";
import { fetchCopy, type Fetched } from "../workspace/fetch.ts";
import { pullIntoCopy } from "../workspace/pull.ts";
import { filesText } from "../workspace/workspace.ts";
import { namedSession } from "./workers.ts";

interface Options {
  withChanges?: boolean;
  maxSize?: unknown;
  stat?: boolean;
  json?: boolean;
}

const changesOption = [
  "--with-changes",
  "Also what the session has not committed",
] as const;

export const sizeOption = [
  "--max-size <size>",
  "Most that the session's changes may take (default: 2g)",
] as const;

/** The bytes of --max-size; undefined for the default. */
export function maxBytesIn(
  { maxSize }: { maxSize?: unknown },
): number | undefined {
  if (maxSize === undefined) return undefined;
  const text = String(maxSize);
  const bytes = sizePattern.test(text) ? parseSize(text) : 0;
  if (bytes >= 1024 ** 2 && bytes <= 1024 ** 5) return bytes;
  throw new Failure(
    "usage",
    `--max-size must be a size from 1m to 1024t, got "${text}"`,
  );
}

export function fetchCommand(io: Io): CAC {
  const cli = command("claudy fetch");
  cli.command(
    "[name]",
    "Fetch a session's commits into refs/remotes/claudy/NAME (default: the session here)",
  )
    .option(changesOption[0], `${changesOption[1]}, as a commit of its own`)
    .option(...sizeOption)
    .option("--json", "Print what was fetched as JSON")
    .example("claudy fetch shop-c1 --with-changes")
    .action(async (word: unknown, options: Options) => {
      const { withChanges, json } = options;
      const maxBytes = maxBytesIn(options);
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      const fetched = await fetchCopy(instance, session, {
        changes: withChanges ?? false,
        maxBytes,
      }, io.log);
      tellLeft(io, fetched);
      io.answer(fetched, fetchedText(fetched), json);
    });
  return cli;
}

function fetchedText({ updated }: Fetched): string {
  if (updated.length === 0) return "Nothing new";
  const lines = updated.slice(0, maxListed).map((one) => {
    const { ref, commits, before, forced } = one;
    const name = printable(ref.replace(/^refs\/remotes\//, ""));
    const was = forced ? ` (forced update of ${before?.slice(0, 12)})` : "";
    return `${name}: ${commits} new ${
      commits === 1 ? "commit" : "commits"
    }${was}`;
  });
  const more = updated.length - maxListed;
  return [...lines, ...(more > 0 ? [`${more} more branches`] : [])].join("\n");
}

/** What is in the copy only. */
export function tellLeft(
  io: Pick<Io, "log">,
  { refused, unread, changed, untracked, withChanges }: Pick<
    Fetched,
    "refused" | "unread" | "changed" | "untracked" | "withChanges"
  >,
): void {
  const files = filesText(changed, untracked);
  if (files !== "" && !withChanges) {
    io.log(`Not committed, and not fetched: ${files} (see --with-changes)`);
  }
  const left = [
    ...refused.map((name) => `A branch was left out: ${printable(name)}`),
    ...(withChanges ? unread : []).map((path) =>
      `Not fetched, since it cannot be read: ${printable(path)}`
    ),
  ];
  for (const line of left.slice(0, maxListed)) io.log(`warning: ${line}`);
  if (left.length > maxListed) {
    io.log(`warning: ${left.length - maxListed} more were left out`);
  }
}

/** A hostile copy may have thousands. */
const maxListed = 50;

export function diffCommand(io: Io): CAC {
  const cli = command("claudy diff");
  cli.command(
    "[name]",
    "Show what a session has changed since it left your branch (default: the session here)",
  )
    .option(...changesOption)
    .option(...sizeOption)
    .option("--stat", "Show only files and numbers of lines")
    .option("--json", "Print the difference as JSON")
    .action(async (word: unknown, options: Options) => {
      const { withChanges = false, stat = false, json } = options;
      const maxBytes = maxBytesIn(options);
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      const { text, left } = await diffCopy(instance, session, {
        changes: withChanges,
        stat,
        maxBytes,
      }, io.log);
      if (left > 0) {
        io.log(`Not committed, and not shown: ${left} (see --with-changes)`);
      }
      const shown = io.showsOutput ? printableLines(text) : text;
      io.answer({ session: session.name, diff: text, left }, shown, json);
    });
  return cli;
}

export function mergeCommand(io: Io): CAC {
  const cli = command("claudy merge");
  cli.command(
    "<name>",
    "Fetch from a session, then merge its branch by your git",
  )
    .option(...changesOption)
    .option(...sizeOption)
    .example("claudy merge shop-c1")
    .action(async (word: unknown, options: Options) => {
      const maxBytes = maxBytesIn(options);
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      return await fetchAndMerge(io, instance, session, {
        changes: options.withChanges ?? false,
        maxBytes,
      });
    });
  return cli;
}

interface FetchRequest {
  changes: boolean;
  maxBytes?: number | undefined;
}

/** Returns the exit code of git merge. */
export async function fetchAndMerge(
  io: Pick<Io, "env" | "log">,
  instance: Instance,
  session: SessionRecord,
  request: FetchRequest,
): Promise<number> {
  const ref = await fetchToMerge(io, instance, session, request);
  return await merge(session.project, ref, io.env);
}

/** Returns the reference to merge. */
export async function fetchToMerge(
  io: Pick<Io, "log">,
  instance: Instance,
  session: SessionRecord,
  request: FetchRequest,
): Promise<string> {
  const fetched = await fetchCopy(instance, session, request, io.log);
  tellLeft(io, fetched);
  const ref = fetched.changes ?? fetched.head;
  if (ref === null) {
    throw new Failure("notFound", `Session "${session.name}" has no commit`);
  }
  return ref;
}

/** Merges by the user's own git, with its settings and hooks. Returns its exit code. */
export async function merge(
  directory: string,
  ref: string,
  env: NodeJS.ProcessEnv,
): Promise<number> {
  const child = spawn("git", ["-C", directory, "merge", ref], {
    stdio: "inherit",
    env: withoutGitPlaces(env),
  });
  try {
    const [code] = await once(child, "exit") as [number | null];
    return code ?? 1;
  } catch (error) {
    throw new Failure("notFound", "Cannot merge: git is not installed here", {
      cause: error,
      hint: `Its commits are fetched: ${ref}`,
    });
  }
}

export function pullCommand(io: Io): CAC {
  const cli = command("claudy pull");
  cli.command(
    "<name>",
    "Bring the commits of your branches into a session's copy, as host/BRANCH",
  )
    .option("--json", "Print what is new as JSON")
    .example("claudy pull shop-c1")
    .action(async (word: unknown, { json }: Options) => {
      const instance = await openInstance(io.env, io.log);
      const session = namedSession(io, instance, word);
      const updated = await pullIntoCopy(instance, session, io.log);
      const lines = updated.map(({ branch, commits }) =>
        `host/${printable(branch)}: ${commits} new ${
          commits === 1 ? "commit" : "commits"
        }`
      );
      if (updated.length > 0) {
        io.log(
          "The session's branch is as it was. To use them: " +
            `claudy send ${session.name} ${shellQuoted(textToMerge(updated))}`,
        );
      }
      const answer = { session: session.name, updated };
      io.answer(answer, lines.join("\n") || "Nothing new", json);
    });
  return cli;
}

/** What to ask the session for. */
export function textToMerge(updated: { branch: string }[]): string {
  const [first] = updated;
  const branch = first && updated.length === 1 ? first.branch : "BRANCH";
  return `merge host/${printable(branch)}`;
}
