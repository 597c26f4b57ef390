// Reads references of a repository that a worker may have written, as text: no program of
// git opens that repository.

import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { plainText } from "../../std/plain-file.ts";

export interface Refs {
  /** Object ids of branches by their names, without refs/heads/. */
  branches: Record<string, string>;
  /** The branch that is checked out; null for a detached HEAD. */
  head: string | null;
  /** The commit of a detached HEAD. */
  detached: string | null;
  /** Names that git does not allow, and files that are not understood. */
  refused: string[];
}

const maxBytes = 16 * 1024 ** 2;
const maxRefs = 10_000;
const maxDepth = 16;
const id = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

export function readRefs(gitDir: string): Refs {
  const found = new Map<string, string>();
  const refused: string[] = [];
  const add = (name: string, value: string) => {
    if (found.size + refused.length >= maxRefs) return;
    if (isBranchName(name) && id.test(value)) found.set(name, value);
    else refused.push(name);
  };
  const packed = plainText(join(gitDir, "packed-refs"), { maxBytes }) ?? "";
  for (const line of packed.split("\n")) {
    const match = /^([0-9a-f]+) refs\/heads\/(.+)$/s.exec(line);
    if (match) add(match[2] ?? "", match[1] ?? "");
  }
  let left = maxRefs;
  const walk = (directory: string, name: string, depth: number) => {
    for (const entry of namesIn(directory)) {
      if (--left < 0) return;
      const path = join(directory, entry);
      const full = name === "" ? entry : `${name}/${entry}`;
      const stat = lstatSync(path, { throwIfNoEntry: false });
      if (stat?.isDirectory()) {
        if (depth < maxDepth) walk(path, full, depth + 1);
        else refused.push(full);
      } else if (!entry.endsWith(".lock")) {
        const text = smallText(path);
        // A symbolic reference names another branch, which is read anyway.
        if (!text.startsWith("ref:")) add(full, text);
      }
    }
  };
  walk(join(gitDir, "refs/heads"), "", 0);
  const text = smallText(join(gitDir, "HEAD"));
  const head = /^ref: *refs\/heads\/(.+)$/.exec(text)?.[1];
  return {
    branches: Object.fromEntries(found),
    head: head !== undefined && isBranchName(head) ? head : null,
    detached: id.test(text) ? text : null,
    refused: [...new Set(refused)],
  };
}

/** The commits of a `shallow` file. */
export function readShallow(gitDir: string): string[] {
  const text = plainText(join(gitDir, "shallow"), { maxBytes }) ?? "";
  return text.split("\n").filter((line) => id.test(line));
}

/**
 * The rules of git-check-ref-format(1) for what comes after refs/heads/, which does not begin
 * with a dash either.
 */
export function isBranchName(name: string): boolean {
  // deno-lint-ignore no-control-regex
  const forbidden = /[\x00-\x20\x7f~^:?*[\\]|\.\.|@\{|\/\/|\.$|\/$|^\/|^-/;
  return name !== "" && name !== "@" && name !== "HEAD" &&
    name.length < 1000 && !forbidden.test(name) &&
    name.split("/").every((part) =>
      !part.startsWith(".") && !part.endsWith(".lock")
    );
}

function smallText(path: string): string {
  try {
    const text = plainText(path, { maxBytes: 4096 }) ?? "";
    return text.replace(/\n$/, "");
  } catch {
    return "";
  }
}

function namesIn(directory: string): string[] {
  try {
    return lstatSync(directory).isDirectory() ? readdirSync(directory) : [];
  } catch {
    return [];
  }
}
