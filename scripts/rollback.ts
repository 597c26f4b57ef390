#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// rollback: restores the current data, or a backup, to the directories of version
// 0.5.

import { openInstance, viewInstance } from "../lib/instance/open.ts";
import {
  type Backup,
  listBackups,
  verifyBackups,
} from "../lib/migration/backups.ts";
import {
  planRollback,
  type RollbackPlan,
} from "../lib/migration/rollback-plan.ts";
import { rollback } from "../lib/migration/rollback.ts";
import { columns } from "../lib/std/text.ts";
import { megabytes, span } from "../lib/std/units.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { track } from "../lib/commands/moves.ts";
import { Io } from "../lib/cli/io.ts";

interface Options {
  backup?: unknown;
  listBackups?: boolean;
  verify?: boolean;
  keepVolumes?: boolean;
  replaceLocal?: boolean;
  force?: boolean;
  yes?: boolean;
  json?: boolean;
}

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-rollback");

  cli.command(
    "",
    "Move the data back to where version 0.5 keeps it; resumes if interrupted",
  )
    .option(
      "--backup <path>",
      "Restore this backup instead of the current data",
    )
    .option("--list-backups", "List the backups")
    .option("--verify", "With --list-backups: verify every file")
    .option("--keep-volumes", "Keep the volumes")
    .option(
      "--replace-local",
      "Also replace directories that were never migrated; they are backed up",
    )
    .option("--yes", "Do not ask")
    .option("--force", "Same as --yes")
    .option("--json", "Print the result as JSON")
    .action(async (options: Options) => {
      const views = options.listBackups && !options.verify;
      const open = views ? viewInstance : openInstance;
      const instance = await open(io.env, io.log);
      const json = options.json ?? false;
      const tracking = track(io);
      if (options.listBackups) {
        const found = listBackups(instance);
        const backups = options.verify
          ? await verifyBackups(instance, found, tracking)
          : found;
        return io.answer(backups, backupsText(backups), json);
      }
      const desired = {
        backup: options.backup === undefined
          ? undefined
          : String(options.backup),
        keepVolumes: options.keepVolumes ?? false,
        replaceLocal: options.replaceLocal ?? false,
      };
      const plan = await planRollback(instance, desired, tracking);
      if (!json) io.log(planText(plan));
      const yes = (options.yes || options.force) ?? false;
      await io.confirm("Roll back?", yes);
      const result = await rollback({
        instance,
        plan,
        options: desired,
        track: tracking,
      });
      io.answer(
        { ...result, phases: tracking.phases() },
        [
          `Rolled back: ${
            result.parts.map(({ name }) => name).join(", ") || "nothing"
          }`,
          ...(result.sessions.length > 0
            ? [`  Unused sessions: ${result.sessions.length}, as before`]
            : []),
          `  Replaced data:   ${result.kept ?? "none"}`,
          `  Volumes removed: ${result.removed.join(", ") || "none"}`,
          "Open sessions without a parent: claudy --legacy DIR",
        ].join("\n"),
        json,
      );
    });

  return await runCli(cli, argv, io);
}

function planText(plan: RollbackPlan): string {
  const rows = plan.parts.map(({ name, from, files, bytes }) => [
    from,
    name,
    String(files),
    megabytes(bytes),
  ]);
  const list = (what: string, names: string[]) =>
    names.length > 0 ? [`${what}: ${names.join(", ")}`] : [];
  return [
    columns([["FROM", "TO", "FILES", "SIZE"], ...rows]),
    ...list("Workers to be stopped", plan.workers),
    ...list("Replaced and backed up", plan.replaced),
    ...list("Not migrated, left unchanged", plan.left),
    ...list("Volumes to be removed", plan.removed),
    ...(plan.resumes ? ["Resumes an interrupted rollback"] : []),
  ].join("\n");
}

function backupsText(backups: Backup[]): string {
  if (backups.length === 0) return "There are no backups";
  const rows = backups.map(({ name, createdAt, parts, whole, checksums }) => [
    name,
    span(Date.now() - Date.parse(createdAt)),
    megabytes((parts ?? []).reduce((sum, { bytes }) => sum + bytes, 0)),
    parts ? parts.map((part) => part.name).join(", ") : "incomplete",
    whole === null
      ? ""
      : !whole
      ? "DAMAGED"
      : checksums
      ? "complete"
      : "readable, has no checksums",
  ]);
  const damage = backups.flatMap(({ name, damaged }) =>
    damaged.map((line) => `${name}: ${line}`)
  );
  return [
    columns([["BACKUP", "AGE", "SIZE", "HOLDS", ""], ...rows]),
    ...damage,
  ].join("\n");
}

if (import.meta.main) await execute(main);
