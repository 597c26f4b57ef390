// Records in JSON files, one per file. A file that is not a valid record is moved away
// and reported, and the other records are still read.

import { randomBytes } from "node:crypto";
import { renameSync } from "node:fs";
import { basename, join } from "node:path";
import * as v from "valibot";
import { inDirectory } from "../std/directory.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "../std/log.ts";
import { ensureDirectory, keepNewest } from "../std/owned.ts";
import { NotPlain, readPlainFile } from "../std/plain-file.ts";

/** More than ten times the size of any record. */
const maxBytes = 256 * 1024;

/** Limits per directory: more than any instance has, and readable within a second. */
const maxRecords = 10_000;
const maxEntries = 100_000;

const keptDamaged = 100;

type Home = Pick<Instance, "home" | "owner">;

/** The names of the records in a directory, without ".json". */
export function recordNames(directory: string, log?: Log): string[] {
  const names: string[] = [];
  let looked = 0;
  inDirectory(directory, (opened) => {
    for (const { name } of opened.entries()) {
      if (++looked > maxEntries || names.length >= maxRecords) {
        log?.(`warning: ${directory} has too many files; not all were read`);
        break;
      }
      if (name.endsWith(".json")) names.push(basename(name, ".json"));
    }
  });
  return names;
}

/** All readable records in a directory. */
export function readRecordFiles<T extends v.GenericSchema>(
  home: Home,
  directory: string,
  schema: T,
  log?: Log,
): v.InferOutput<T>[] {
  return recordNames(directory, log).flatMap((name) => {
    const path = join(directory, `${name}.json`);
    try {
      const record = readRecordFile(home, path, schema, log);
      return record === undefined ? [] : [record];
    } catch (error) {
      log?.(`warning: skipping ${path}: ${messageOf(error)}`);
      return [];
    }
  });
}

/**
 * Reads a record; undefined if it is missing or damaged. A damaged record is moved away
 * and reported; without `log` it stays, so that a later caller can report it.
 */
export function readRecordFile<T extends v.GenericSchema>(
  home: Home,
  path: string,
  schema: T,
  log?: Log,
): v.InferOutput<T> | undefined {
  let text: string;
  try {
    text = readPlainFile(path, { maxBytes }).toString("utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    if (!(error instanceof NotPlain)) throw error;
    setAside(home, path, `is ${error.message}`, log);
    return undefined;
  }
  const result = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text);
  if (result.success) return result.output;
  setAside(home, path, "is damaged", log);
  return undefined;
}

/** Moves an invalid record away and reports it. */
function setAside(
  { home, owner }: Home,
  path: string,
  what: string,
  log: Log | undefined,
): void {
  if (!log) return;
  const { damaged } = home;
  try {
    ensureDirectory(damaged, 0o700, owner);
    const name = `${basename(path)}.${Date.now()}`;
    renameSync(
      path,
      join(damaged, `${name}.${randomBytes(2).toString("hex")}`),
    );
  } catch (error) {
    // Another process has moved it, and reports it.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    log(`warning: ${path} ${what}, and cannot be moved: ${messageOf(error)}`);
    return;
  }
  log(`warning: ${path} ${what}; it was moved to ${damaged}`);
  keepNewest(damaged, "", keptDamaged);
}
