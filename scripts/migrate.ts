#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// migrate: moves the data of version 0.5 into volumes.

import { Failure } from "../lib/std/errors.ts";
import { type Instance } from "../lib/instance/instance.ts";
import { openInstance, viewInstance } from "../lib/instance/open.ts";
import { abortable, abortMigration } from "../lib/migration/abort.ts";
import { planRemoval, removeSource } from "../lib/migration/remove-source.ts";
import {
  type MigrationPlan,
  planMigration,
} from "../lib/migration/migrate-plan.ts";
import { migrate } from "../lib/migration/migrate.ts";
import { columns, printable } from "../lib/std/text.ts";
import { binarySize, megabytes } from "../lib/std/units.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { track } from "../lib/commands/moves.ts";
import { Io } from "../lib/cli/io.ts";

interface Options {
  dryRun?: boolean;
  skipBackup?: boolean;
  force?: boolean;
  inheritHooks?: boolean;
  yes?: boolean;
  resume?: boolean;
  abort?: boolean;
  removeSource?: boolean;
  json?: boolean;
}

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-migrate");

  cli.command(
    "",
    "Move the data of version 0.5 into volumes; resumes if interrupted",
  )
    .option("--dry-run", "Show what would be moved and change nothing")
    .option("--skip-backup", "Make no backup (the source is kept in any case)")
    .option("--force", "Back up data that is already in the volumes first")
    .option(
      "--inherit-hooks",
      "Sessions also inherit hooks and other settings that run programs",
    )
    .option("--yes", "Do not ask")
    .option(
      "--resume",
      "Resume an interrupted migration; fail if there is none",
    )
    .option("--abort", "Undo an interrupted migration")
    .option(
      "--remove-source",
      "Delete the migrated directories after verifying the backup",
    )
    .option("--json", "Print the plan or the result as JSON")
    .action(async (options: Options) => {
      refuseContradictions(options);
      const open = options.dryRun ? viewInstance : openInstance;
      const instance = await open(io.env, io.log);
      if (options.abort) return await abort(io, instance, options);
      if (options.removeSource) return await remove(io, instance, options);
      return await run(io, instance, options);
    });

  return await runCli(cli, argv, io);
}

function refuseContradictions(options: Options): void {
  const modes = (["dryRun", "resume", "abort", "removeSource"] as const)
    .filter((mode) => options[mode]);
  if (modes.length < 2) return;
  throw new Failure(
    "usage",
    "--dry-run, --resume, --abort and --remove-source exclude each other",
  );
}

async function run(
  io: Io,
  instance: Instance,
  options: Options,
): Promise<void> {
  const desired = {
    skipBackup: options.skipBackup ?? false,
    force: options.force ?? false,
    inheritHooks: options.inheritHooks ?? false,
  };
  const plan = await planMigration(instance, desired, io.log);
  const json = options.json ?? false;
  if (options.dryRun) return io.answer(plan, planText(plan), json);
  if (options.resume && !plan.resumes) {
    throw new Failure("notFound", "There is no interrupted migration", {
      hint: "See what would be migrated: hal9000-migrate --dry-run",
    });
  }
  if (!json) io.log(planText(plan));
  await io.confirm("Migrate this? The source is kept.", options.yes ?? false);
  const tracking = track(io);
  const result = await migrate({
    instance,
    plan,
    options: desired,
    env: io.env,
    track: tracking,
  });
  const phases = tracking.phases();
  const collections = result.collections ?? [];
  const vectors = collections.reduce((sum, { count }) => sum + count, 0);
  io.answer(
    { ...result, phases },
    [
      `Migrated: ${result.parts.map(({ name }) => name).join(", ")}`,
      `  ChromaDB: ${collections.length} collections, ${vectors} vectors`,
      `  Sessions: ${result.sessions} imported`,
      ...(plan.conversations
        ? [
          `  Conversations: ${result.conversations} copied to their sessions`,
          `  Credentials:   ${
            result.credentials.join(", ") || "none"
          } taken over`,
        ]
        : []),
      `  Backup:   ${result.backup ?? "none"}`,
      ...leftText(result.left),
      ...(plan.parts.some(({ to }) => to !== "stays")
        ? [
          "The old directories are still there. Delete them: hal9000-migrate --remove-source",
        ]
        : []),
    ].join("\n"),
    json,
  );
}

/** The lines are written by sessions, and there may be many. */
function leftText(left: string[]): string[] {
  const shown = left.slice(0, 20).map((line) => `  ${printable(line)}`);
  const more = left.length - shown.length;
  return left.length === 0 ? [] : [
    "Not taken over from claude/.shared-config, where it stays:",
    ...shown,
    ...(more > 0 ? [`  and ${more} more, see --json`] : []),
  ];
}

async function abort(
  io: Io,
  instance: Instance,
  options: Options,
): Promise<void> {
  abortable(instance);
  await io.confirm(
    "Undo the migration and empty its volumes? The source is kept.",
    options.yes ?? false,
  );
  await abortMigration({ instance, track: track(io) });
  io.answer(
    { aborted: true },
    "Migration undone",
    options.json ?? false,
  );
}

async function remove(
  io: Io,
  instance: Instance,
  options: Options,
): Promise<void> {
  const directories = await planRemoval(instance);
  io.log(directories.join("\n"));
  await io.confirm(
    "Delete these? The backup is verified first.",
    options.yes ?? false,
  );
  await removeSource({ instance, track: track(io) });
  io.answer(
    { removed: directories },
    `Removed: ${directories.join(", ")}`,
    options.json ?? false,
  );
}

function sharedText(conversations: MigrationPlan["conversations"]): string[] {
  if (!conversations) return [];
  const { count, unassigned } = conversations;
  const rest = unassigned.length > 0
    ? `, ${unassigned.length} of them of an unknown project, which are not copied`
    : "";
  return [
    `Conversations: ${count}${rest}`,
    "Settings and credentials: those in claude/.shared-config",
  ];
}

function planText(plan: MigrationPlan): string {
  const rows = plan.parts.map(({ from, to, files, bytes }) => [
    from,
    to,
    String(files),
    megabytes(bytes),
  ]);
  return [
    columns([["FROM", "TO", "FILES", "SIZE"], ...rows]),
    `Sessions: ${plan.sessions.length}`,
    ...sharedText(plan.conversations),
    ...plan.rooms.map(({ at, neededBytes, freeBytes }) =>
      `Disk space at ${at}: ${binarySize(neededBytes)} needed, ` +
      `${binarySize(freeBytes)} free`
    ),
    ...(plan.occupied.length > 0
      ? [`Volumes that already contain data: ${plan.occupied.join(", ")}`]
      : []),
    ...(plan.resumes ? ["Resumes an interrupted migration"] : []),
  ].join("\n");
}

if (import.meta.main) await execute(main);
