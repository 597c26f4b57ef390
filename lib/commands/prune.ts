// claudy prune: removes what an instance has left behind.

import type { CAC } from "cac";
import { openInstance, viewInstance } from "../instance/open.ts";
import {
  findLeftovers,
  type Leftover,
  removeLeftovers,
} from "../doctor/prune.ts";
import { Failure } from "../std/errors.ts";
import { columns } from "../std/text.ts";
import { figureCell, megabytes } from "../std/units.ts";
import { wholeNumber } from "../cli/options.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

interface Options {
  olderThan?: unknown;
  sessions?: boolean;
  caches?: boolean;
  allInstances?: boolean;
  dryRun?: boolean;
  yes?: boolean;
  json?: boolean;
}

const dayMs = 24 * 60 * 60_000;

export function pruneCommand(io: Io): CAC {
  const cli = command("claudy prune");
  cli.command(
    "",
    "Remove old logs, records, homes, backups, copies and images, after asking",
  )
    .option(
      "--older-than <days>",
      "Minimum age in days (default: 30)",
    )
    .option(
      "--sessions",
      "Also remove sessions that old, with their conversations and copies",
    )
    .option("--caches", "Also remove package caches that no container uses")
    .option(
      "--all-instances",
      "Also remove images of instances without containers and volumes",
    )
    .option("--dry-run", "Only show them")
    .option("--yes", "Do not ask")
    .option("--json", "Print them as JSON")
    .action(async (options: Options) => {
      const days = wholeNumber("--older-than", options.olderThan) ?? 30;
      const open = options.dryRun ? viewInstance : openInstance;
      const instance = await open(io.env, io.log);
      const desired = {
        olderThanMs: days * dayMs,
        sessions: options.sessions ?? false,
        caches: options.caches ?? false,
        allInstances: options.allInstances ?? false,
      };
      const found = await findLeftovers(instance, desired, io.log);
      const { json } = options;
      if (options.dryRun || found.length === 0) {
        return io.answer(found, textOf(found), json);
      }
      io.log(textOf(found));
      await io.confirm(`Remove these ${found.length}?`, options.yes);
      const { removed, errors } = await removeLeftovers(
        instance,
        found,
        desired,
        io.log,
      );
      io.answer(removed, `Removed ${summary(removed)}`, json);
      if (errors.length > 0) {
        throw new Failure(
          removed.length > 0 ? "partial" : "failed",
          errors.join("; "),
        );
      }
    });
  return cli;
}

function textOf(found: Leftover[]): string {
  if (found.length === 0) return "Nothing to remove";
  const rows = found.map(({ kind, name, sizeBytes }) => [
    kind,
    figureCell(sizeBytes, megabytes),
    name,
  ]);
  return `${columns(rows)}\n${summary(found)}`;
}

function summary(found: Leftover[]): string {
  const total = found.reduce((sum, { sizeBytes }) => sum + (sizeBytes ?? 0), 0);
  const isKnown = found.every(({ sizeBytes }) => sizeBytes !== null);
  const least = isKnown ? "" : "at least ";
  return `${found.length}, ${least}${megabytes(total)} together`;
}
