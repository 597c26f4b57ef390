#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// init-volumes: creates HAL9000_HOME's directories and the instance's volumes.

import { Failure } from "../lib/std/errors.ts";
import { openInstance, viewInstance } from "../lib/instance/open.ts";
import {
  clean,
  type CleanPlan,
  planClean,
  storageStatus,
} from "../lib/instance/storage.ts";
import { megabytes } from "../lib/std/units.ts";
import { ensureStorage } from "../lib/instance/volumes.ts";
import { columns } from "../lib/std/text.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-init-volumes");

  cli.command(
    "",
    "Create missing directories, settings and volumes",
  )
    .option("--status", "Show the current state and change nothing")
    .option("--clean", "Delete all data except backups first")
    .option("--yes", "Do not ask before deleting")
    .option("--json", "Print home, directories and volumes as JSON")
    .action(async (options) => {
      if (options.clean && options.status) {
        throw new Failure(
          "usage",
          "--status and --clean exclude each other",
          {
            hint: "Pass only one of them.",
          },
        );
      }
      const open = options.status ? viewInstance : openInstance;
      const instance = await open(io.env, io.log);
      if (options.clean) {
        const plan = await planClean(instance);
        if (plan.directories.length + plan.volumes.length > 0) {
          for (const line of destroyed(plan)) io.log(line);
          await io.confirm("Delete all of this?", options.yes);
          await clean(instance, plan);
        }
      }
      if (!options.status) await ensureStorage(instance);
      const status = await storageStatus(instance);
      const rows = [
        ...status.directories.map(({ path, mode, sizeBytes }) => [
          path,
          mode ?? "absent",
          megabytes(sizeBytes),
          "",
        ]),
        ...status.volumes.map(({ name, mountpoint, sizeBytes, usedBy }) => [
          name,
          mountpoint === null ? "absent" : "volume",
          megabytes(sizeBytes),
          usedBy.join(", "),
        ]),
      ];
      const text = columns([["WHERE", "MODE", "SIZE", "USED BY"], ...rows]);
      io.answer(status, text, options.json);
    });

  return await runCli(cli, argv, io);
}

function destroyed({ directories, volumes }: CleanPlan): string[] {
  return [
    "This will be deleted:",
    ...directories.map((d) => `  ${d.path}  ${megabytes(d.sizeBytes)}`),
    ...volumes.map((v) => `  volume ${v.name}  ${megabytes(v.sizeBytes)}`),
  ];
}

if (import.meta.main) await execute(main);
