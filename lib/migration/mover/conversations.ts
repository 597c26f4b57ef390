// Finds the conversations in a Claude home. Sessions wrote to it: links are not followed, and
// reads are limited.

import { Buffer } from "node:buffer";
import { closeSync, constants, openSync, readSync } from "node:fs";
import * as v from "valibot";
import { type Directory, inDirectory } from "../../std/directory.ts";

const conversationSchema = v.object({
  /** Its directory in projects/, which the CLI names after the working directory. */
  directory: v.string(),
  id: v.string(),
  /** The working directories that it contains. */
  cwds: v.array(v.string()),
  /** The absolute paths that its tools have used. */
  paths: v.array(v.string()),
});

export const foundSchema = v.object({
  conversations: v.array(conversationSchema),
  /** Number of files above the limits, or with names that the CLI does not use. */
  skipped: v.number(),
});

export type Conversation = v.InferOutput<typeof conversationSchema>;

const maxConversations = 5000;
/**
 * How much of a conversation is searched for paths: enough to tell its project. Even the
 * most and largest files that sessions can have made take only minutes.
 */
const maxSearchedBytes = 4 * 1024 ** 2;
const maxPaths = 200;
/** Limit for the paths of all conversations. */
const maxCharacters = 8e6;

const plainName = /^\w[\w.-]*$|^-[\w.-]+$/;

export function findConversations(
  { path }: { path: string },
): v.InferOutput<typeof foundSchema> {
  const found: v.InferOutput<typeof foundSchema> = {
    conversations: [],
    skipped: 0,
  };
  const budget = { characters: maxCharacters };
  inDirectory(path, (home) => {
    const projects = home.enter("projects");
    if (!projects) return;
    for (const directory of namesIn(projects, "directory")) {
      inDirectory(projects.at(directory), (opened) => {
        for (const file of namesIn(opened, "file")) {
          if (!file.endsWith(".jsonl") || opened.stat(file)?.sizeBytes === 0) {
            continue;
          }
          const id = file.slice(0, -".jsonl".length);
          const isUsual = plainName.test(directory) && plainName.test(id);
          if (!isUsual || found.conversations.length >= maxConversations) {
            found.skipped++;
            continue;
          }
          const mentioned = mentionsIn(opened.at(file), budget);
          found.conversations.push({ directory, id, ...mentioned });
        }
      });
    }
    projects.close();
  });
  return found;
}

function* namesIn(directory: Directory, kind: "file" | "directory") {
  for (const entry of directory.entries()) {
    if (entry.kind === kind) yield entry.name;
  }
}

const mention =
  /"(cwd|file_path|filePath|notebook_path|path)":"(\/[^"\\]{0,1000})"/g;
/** Longer than a match, so that none is lost between two chunks. */
const overlap = 1100;

function mentionsIn(
  path: string,
  budget: { characters: number },
): Pick<Conversation, "cwds" | "paths"> {
  const cwds = new Set<string>();
  const paths = new Set<string>();
  let rest = "";
  eachChunk(path, maxSearchedBytes, (chunk) => {
    // Each byte is a character, so that chunks may split characters.
    const text = rest + chunk.toString("latin1");
    for (const [, key, value = ""] of text.matchAll(mention)) {
      const set = key === "cwd" ? cwds : paths;
      const mentioned = Buffer.from(value, "latin1").toString("utf8");
      if (set.has(mentioned) || set.size >= maxPaths) continue;
      budget.characters -= mentioned.length;
      if (budget.characters < 0) return;
      set.add(mentioned);
    }
    rest = text.slice(-overlap);
  });
  return { cwds: [...cwds], paths: [...paths] };
}

export const chunkBytes = 1024 ** 2;

function eachChunk(
  path: string,
  maxBytes: number,
  act: (chunk: Buffer) => void,
): void {
  const file = openFile(path);
  try {
    const buffer = Buffer.alloc(chunkBytes);
    for (let read = 0; read < maxBytes;) {
      const count = readSync(file, buffer, 0, chunkBytes, null);
      if (count === 0) return;
      read += count;
      act(buffer.subarray(0, count));
    }
  } finally {
    closeSync(file);
  }
}

export function openFile(path: string): number {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  return openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
}
