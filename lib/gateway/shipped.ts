// The MCP servers that this checkout brings along: how they are recognized, and what
// their tools accept. What a worker sends them is checked against this before the
// process gets it: they run on the host, and do not check all of it themselves.

import { Buffer } from "node:buffer";
import { lstatSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import * as v from "valibot";
import type { ServerConfig } from "../mcp/config.ts";

/** What a tool accepts: every argument by name, and no other. */
export interface Tool {
  arguments: Record<string, v.GenericSchema>;
  /** The reason why a call is refused whose arguments have the right form. */
  refusal?: (given: Record<string, unknown>) => string | undefined;
}

export type Tools = Record<string, Tool>;

interface Shipped {
  npmPackage: string;
  command: string;
  tools(server: Pick<ServerConfig, "env">): Tools;
}

const shipped: Shipped[] = [
  {
    npmPackage: "@allpepper/memory-bank-mcp",
    command: "mcp-server-memory-bank",
    tools: ({ env }) => memoryBankTools(env["MEMORY_BANK_ROOT"]),
  },
  {
    npmPackage: "@modelcontextprotocol/server-sequential-thinking",
    command: "mcp-server-sequential-thinking",
    tools: () => sequentialThinkingTools,
  },
];

/**
 * The tools of a server that is one of these, however it is started: by its command, by
 * its path, or by a runner such as npx. `program` is where its command was found.
 */
export function shippedTools(
  server: Pick<ServerConfig, "command" | "args" | "env">,
  program: string,
): Tools | undefined {
  const words = [server.command ?? "", program, realPath(program)];
  const found = shipped.find(({ npmPackage, command }) =>
    [...words, ...server.args].some((word) =>
      isPartOfPath(word, npmPackage) || word.split("/").at(-1) === command
    )
  );
  return found?.tools(server);
}

/** Also with a version behind it: npx -y @allpepper/memory-bank-mcp@0.2.2 */
function isPartOfPath(word: string, npmPackage: string): boolean {
  return `/${word}/`.replace(/(?<=[^/])@[^/@]*\/$/, "/")
    .includes(`/${npmPackage}/`);
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

const text = v.string("must be text");

/** Of a file's name in ext4, XFS, Btrfs and APFS. */
const maxNameBytes = 255;

/**
 * One segment of a path. Not hidden: a ".git/config" or ".envrc" that a worker writes
 * would be run by the user's own programs.
 */
const name = v.pipe(
  text,
  v.check(
    (given) =>
      /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_ .,+@&#'()-]*$/u.test(given) &&
      !/\p{Default_Ignorable_Code_Point}/u.test(given) &&
      Buffer.byteLength(given) <= maxNameBytes,
    "must be a plain name: letters, digits, spaces and _ . , + @ & # ' ( ) -, " +
      `beginning with a letter, a digit or _, of ${maxNameBytes} bytes at most`,
  ),
);

function memoryBankTools(root: string | undefined): Tools {
  const bank = root === undefined ? undefined : resolve(homedir(), root);
  const refusal = ({ projectName, fileName }: Record<string, unknown>) => {
    if (bank === undefined) return "MEMORY_BANK_ROOT is not set";
    const project = join(bank, String(projectName));
    const at = lstatSync(project, { throwIfNoEntry: false });
    if (at && !at.isDirectory()) return '"projectName" is not a directory';
    if (fileName === undefined) return undefined;
    // A link may lead anywhere, and a pipe would never end.
    const file = lstatSync(join(project, String(fileName)), {
      throwIfNoEntry: false,
    });
    return file && !file.isFile() ? '"fileName" is not a file' : undefined;
  };
  const file = { projectName: name, fileName: name };
  return {
    list_projects: { arguments: {} },
    list_project_files: { arguments: { projectName: name }, refusal },
    memory_bank_read: { arguments: file, refusal },
    memory_bank_write: { arguments: { ...file, content: text }, refusal },
    memory_bank_update: { arguments: { ...file, content: text }, refusal },
  };
}

/** A history of them stays in memory, and each is logged three times as wide. */
const maxThoughtLength = 100_000;
const shortLength = 200;

// Some models write numbers and truth values as text, which the server accepts.
const count = v.union([
  v.pipe(v.number(), v.integer(), v.minValue(1)),
  v.pipe(text, v.regex(/^[1-9]\d{0,9}$/)),
], "must be a whole number from 1");
const truth = v.union([
  v.boolean(),
  v.pipe(text, v.regex(/^(true|false)$/i)),
], "must be true or false");

const sequentialThinkingTools: Tools = {
  sequentialthinking: {
    arguments: {
      thought: v.pipe(
        text,
        v.maxLength(
          maxThoughtLength,
          `must be ${maxThoughtLength} characters at most`,
        ),
      ),
      nextThoughtNeeded: truth,
      thoughtNumber: count,
      totalThoughts: count,
      isRevision: v.optional(truth),
      revisesThought: v.optional(count),
      branchFromThought: v.optional(count),
      branchId: v.optional(
        v.pipe(
          text,
          v.maxLength(shortLength, `must be ${shortLength} characters at most`),
        ),
      ),
      needsMoreThoughts: v.optional(truth),
    },
  },
};
