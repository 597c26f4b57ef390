#!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")"/launch "$0" "$@"'
// coordinator: lists and stops the workers of an instance.

import process from "node:process";
import { openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { listWorkers, stopWorker, type WorkerState } from "../lib/workers.ts";
import { answer, columns, command, runCli } from "./cli.ts";

const cli = command("coordinator");
const open = () => openInstance(process.env, logToStderr);

cli.command("list", "List the workers")
  .option("--json", "Print them as JSON")
  .action(async (options) => {
    const workers = await listWorkers(await open());
    answer(workers, table(workers), options.json);
  });

cli.command("stop <...names>", "Stop workers; their logs are kept")
  .action(async (names: string[]) => {
    const instance = await open();
    await Promise.all(
      names.map((name) => stopWorker(instance, name, logToStderr)),
    );
    answer(names, names.join("\n"), false);
  });

cli.command("stop-all", "Stop all workers")
  .action(async () => {
    const instance = await open();
    const names = (await listWorkers(instance)).map(({ name }) => name);
    await Promise.all(
      names.map((name) => stopWorker(instance, name, logToStderr)),
    );
    answer(names, names.join("\n"), false);
  });

await runCli(cli);

function table(workers: WorkerState[]): string {
  return columns([
    ["NAME", "STATUS", "IMAGE", "PROJECT"],
    ...workers.map(({ name, status, image, project }) => [
      name,
      status,
      image,
      project,
    ]),
  ]);
}
