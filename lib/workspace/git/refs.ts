// Reads references of a repository that a worker may have written, as text: no program of
// git opens that repository.

import { lstatSync } from "node:fs";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { Directory, inDirectory, namesUpTo } from "../../std/directory.ts";
import { plainText } from "../../std/plain-file.ts";
import { Limits } from "./limits.ts";

export interface Refs {
  /** Object ids of branches by their names, without refs/heads/. */
  branches: Record<string, string>;
  /** The branch that is checked out; null for a detached HEAD. */
  head: string | null;
  /** The commit of a detached HEAD. */
  detached: string | null;
  /** Names that git does not allow, and files that are not understood. */
  refused: string[];
  /** Commits of tags, notes, stashes, detached worktrees, refused branches and the like. */
  others: string[];
  /** Commits of other repositories that were fetched or pushed to. */
  remotes: string[];
  /** The number of references, but not of remotes, whose commit cannot be read. */
  unread: number;
}

const maxBytes = 16 * 1024 ** 2;
const maxDepth = 17;
const id = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** Throws a Failure if there are more branches than the limit. */
export function readRefs(gitDir: string, limits = new Limits()): Refs {
  const tooMany = () =>
    limits.exceeded(`It has more than ${limits.branches} branches or tags`);
  const found = new Map<string, string>();
  const refused: string[] = [];
  const others = new Set<string>();
  const remotes = new Set<string>();
  let unread = 0;
  const keep = (value: string | null) => {
    if (value === null) return;
    if (id.test(value)) others.add(value);
    else unread++;
  };
  /** Null for a link or a pipe, which has no commit of its own. */
  const add = (ref: string, value: string | null) => {
    const isId = value !== null && id.test(value);
    const [, kind, name = ""] = /^(heads|remotes)\/(.+)$/s.exec(ref) ?? [];
    if (kind === undefined) keep(value);
    else if (kind === "remotes") isId && remotes.add(value);
    else if (isId && isBranchName(name)) found.set(name, value);
    else {
      refused.push(name);
      keep(value);
    }
    if (found.size + refused.length > limits.branches) throw tooMany();
  };
  const packed = packedRefs(gitDir, limits);
  for (const line of packed.split("\n")) {
    const [, value, ref = ""] = /^([0-9a-f]+) refs\/(.+)$/s.exec(line) ?? [];
    if (value !== undefined) add(ref, value);
  }
  let left = limits.branches;
  let remotesLeft = limits.branches;
  const walk = (directory: Directory, above: string, depth: number) => {
    for (const { name, kind } of directory.entries()) {
      const full = above === "" ? name : `${above}/${name}`;
      // A session may fetch from a repository with many branches.
      if (full.startsWith("remotes/")) {
        if (--remotesLeft < 0) return;
      } else if (--left < 0) throw tooMany();
      if (kind === "directory") {
        if (depth === maxDepth) add(full, "");
        else {
          inDirectory(
            directory.at(name),
            (inner) => walk(inner, full, depth + 1),
          );
        }
      } else if (!name.endsWith(".lock")) {
        const text = kind === "file" ? smallText(directory.at(name)) : null;
        // A symbolic reference names another branch, which is read anyway.
        if (!text?.startsWith("ref:")) add(full, text);
      }
    }
  };
  inDirectory(join(gitDir, "refs"), (refs) => walk(refs, "", 0));
  const stashes = plainText(join(gitDir, "logs/refs/stash"), { maxBytes }) ??
    "";
  const elsewhere = [
    ...stashes.split("\n").map((line) => line.split(" ")[1] ?? ""),
    ...namesUpTo(limits.branches, join(gitDir, "worktrees"))
      .map((name) => smallText(join(gitDir, "worktrees", name, "HEAD"))),
  ];
  for (const value of elsewhere) if (id.test(value)) others.add(value);
  const text = smallText(join(gitDir, "HEAD"));
  const head = /^ref: *refs\/heads\/(.+)$/.exec(text)?.[1];
  const names = new Set([...found.keys()].map(asFile));
  const taken = new Set(
    head !== undefined && found.has(head) ? [asFile(head)] : [],
  );
  for (const [name, value] of [...found]) {
    const file = asFile(name);
    const isTaken = name !== head && taken.has(file) ||
      parentsOf(file).some((parent) => names.has(parent));
    taken.add(file);
    if (!isTaken) continue;
    found.delete(name);
    refused.push(name);
    others.add(value);
  }
  return {
    branches: Object.fromEntries(found),
    head: head !== undefined && isBranchName(head) ? head : null,
    detached: id.test(text) ? text : null,
    refused: [...new Set(refused)],
    others: [...others],
    remotes: [...remotes],
    unread,
  };
}

/**
 * The same for names that cannot be together as files: the user's file system may ignore case.
 */
export function asFile(name: string): string {
  return name.normalize("NFC").toUpperCase();
}

function packedRefs(gitDir: string, limits: Limits): string {
  const path = join(gitDir, "packed-refs");
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return "";
  const text = plainText(path, { maxBytes: limits.branches * maxLineBytes });
  if (text === undefined) throw limits.exceeded("Its packed-refs is too large");
  return text;
}

/** More than a name of a branch takes: tags are in this file too. */
const maxLineBytes = 1600;

/** "a" and "a/b" for "a/b/c". */
export function parentsOf(name: string): string[] {
  return name.split("/").slice(0, -1)
    .map((_, at, parts) => parts.slice(0, at + 1).join("/"));
}

/** The commits of a `shallow` file. */
export function readShallow(gitDir: string): string[] {
  const text = plainText(join(gitDir, "shallow"), { maxBytes }) ?? "";
  return text.split("\n").filter((line) => id.test(line));
}

/**
 * The rules of git-check-ref-format(1) for what comes after refs/heads/, which does not begin
 * with a dash either, is UTF-8, and has no control characters of ISO 8859-1.
 */
export function isBranchName(name: string): boolean {
  // deno-lint-ignore no-control-regex
  const forbidden = /[\x00-\x20\x7f-\x9f~^:?*[\\]|\.\.|@\{|\/\/|\.$|\/$|^\/|^-/;
  return name !== "" && name !== "@" && name !== "HEAD" &&
    name.length < 1000 && !forbidden.test(name) &&
    !name.includes("\ufffd") &&
    name.split("/").every((part) =>
      !part.startsWith(".") && !part.endsWith(".lock") &&
      Buffer.byteLength(part) <= maxPartBytes
    );
}

/** Of the name of a file, which git adds ".lock" to. */
const maxPartBytes = 250;

function smallText(path: string): string {
  try {
    const text = plainText(path, { maxBytes: 4096 }) ?? "";
    return text.replace(/\n$/, "");
  } catch {
    return "";
  }
}
