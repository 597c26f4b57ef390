// The MCP servers that ship with this checkout: how to recognize them, and which
// arguments their tools accept. They run on the host and do not validate
// everything, so the gateway validates the messages of workers first.

import { Buffer } from "node:buffer";
import { lstatSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import * as v from "valibot";
import type { ServerConfig } from "../mcp/config.ts";

/** The arguments that a tool accepts; all others are rejected. */
export interface Tool {
  arguments: Record<string, v.GenericSchema>;
  /** Checks beyond the form of the arguments: the reason to reject a call, if any. */
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
 * The tools of a server that is one of these, however it is started: by its
 * command, by its path, or by a runner such as npx. `program` is the resolved path
 * of its command.
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

/** The word may end in a version: npx -y @allpepper/memory-bank-mcp@0.2.2 */
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

/** Maximum length of a file name in ext4, XFS, Btrfs and APFS. */
const maxNameBytes = 255;

/**
 * One segment of a path. Hidden names are rejected: the user's own programs would
 * run a ".git/config" or ".envrc" that a worker wrote.
 */
const name = v.pipe(
  text,
  v.check(
    (given) =>
      /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_ .,+@&#'()-]*$/u.test(given) &&
      !/\p{Default_Ignorable_Code_Point}/u.test(given) &&
      Buffer.byteLength(given) <= maxNameBytes,
    "must be a plain name: letters, digits, spaces and _ . , + @ & # ' ( ) -, " +
      `beginning with a letter, a digit or _, at most ${maxNameBytes} bytes`,
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
    // A link may point anywhere, and reading a pipe would not end.
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

/** The server keeps all thoughts in memory, and logs each at three times its size. */
const maxThoughtLength = 100_000;
const shortLength = 200;

// Some models send numbers and booleans as text, which the server accepts.
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
          `must be at most ${maxThoughtLength} characters`,
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
          v.maxLength(shortLength, `must be at most ${shortLength} characters`),
        ),
      ),
      needsMoreThoughts: v.optional(truth),
    },
  },
};
