#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// coordinator: lists, watches and stops the workers of an instance.

import { stopWorker } from "../lib/worker/ending.ts";
import { onEach } from "../lib/std/errors.ts";
import { type Instance } from "../lib/instance/instance.ts";
import { openInstance, viewInstance } from "../lib/instance/open.ts";
import { withoutNetwork, type WorkerState } from "../lib/worker/workers.ts";
import { tellOfPids } from "../lib/worker/limit-events.ts";
import { workersStatus, workerStats } from "../lib/worker/status.ts";
import { binarySize, figureCell, limitCell, span } from "../lib/std/units.ts";
import {
  findWorker,
  listWorkers,
  requireWorker,
} from "../lib/worker/workers.ts";
import { columns } from "../lib/std/text.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";
import {
  attachToWorker,
  printWorkerLog,
  withNetworks,
} from "../lib/commands/workers.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-coordinator");
  const open = () => openInstance(io.env, io.log);
  const view = () => viewInstance(io.env, io.log);

  cli.command("list", "List the workers")
    .option("--json", "Print them as JSON")
    .action(async (options) => {
      const instance = await view();
      const listed = await listWorkers(instance);
      const offline = await withoutNetwork(instance, listed);
      const workers = listed.map((worker) => ({
        ...worker,
        offline: offline.has(worker.name),
      }));
      const rows = workers.map(({ name, status, image, project, offline }) => [
        name,
        offline ? `${status}, its network has ended` : status || "Created",
        image,
        project,
      ]);
      const text = columns(
        withNetworks(
          [["NAME", "STATUS", "IMAGE", "PROJECT"], ...rows],
          workers,
        ),
        io.width,
      );
      io.answer(workers, text, options.json);
    });

  cli.command("count", "Count the running workers")
    .option("--json", "Print the count as JSON")
    .action(async (options) => {
      const workers = await listWorkers(await view());
      const count = workers.filter(({ state }) => state === "running").length;
      io.answer({ count }, String(count), options.json);
    });

  cli.command("stop <...names>", "Stop workers and keep their logs")
    .option("--json", "Print their names as JSON")
    .action(async (names: string[], options) => {
      await stop(io, await open(), [...new Set(names)], options.json);
    });

  cli.command("stop-all", "Stop all workers, after asking")
    .option("--yes", "Do not ask")
    .option("--json", "Print their names as JSON")
    .action(async (options) => {
      const instance = await open();
      const workers = await listWorkers(instance);
      const names = workers.map(({ name }) => name);
      if (names.length > 0) {
        await io.confirm(`Stop ${names.join(", ")}?`, options.yes);
      }
      const stopOne = (worker: WorkerState) =>
        stopWorker(instance, worker, io.log);
      await onEach(workers, stopOne, report(io, options.json));
    });

  cli.command("logs <name>", "Show the log of a worker, running or removed")
    .option("-f, --follow", "Follow log output")
    .option("--tail <n>", "Number of lines to show from the end (default: all)")
    .action(async (name: string, options) => {
      return await printWorkerLog(io, await view(), name, options);
    });

  cli.command(
    "attach <name>",
    "Attach to a worker's session, or to a shell if it has none",
  )
    .option("--shell", "Always open a shell")
    .action(async (name: string, options) => {
      const instance = await open();
      const worker = await findWorker(instance, name);
      return await attachToWorker(io, instance, worker, options);
    });

  cli.command(
    "status",
    "Show the status of each worker and how recent ones ended",
  )
    .option("--json", "Print it as JSON")
    .action(async (options) => {
      const status = await workersStatus(await view());
      const live = status.workers.map((worker) => [
        worker.name,
        worker.summary,
        limitCell(worker.memoryBytes, binarySize),
        limitCell(worker.cpus),
        limitCell(worker.pids),
        worker.project,
      ]);
      const ended = status.ended.map(({ name, summary, endedAt, project }) => [
        name,
        summary,
        `${span(Date.now() - Date.parse(endedAt))} ago`,
        project,
      ]);
      const parts = [
        columns(
          withNetworks([
            ["NAME", "STATUS", "MEMORY", "CPUS", "PIDS", "PROJECT"],
            ...live,
          ], status.workers),
          io.width,
        ),
      ];
      if (ended.length > 0) {
        parts.push(
          columns([["ENDED", "HOW", "WHEN", "PROJECT"], ...ended], io.width),
        );
      }
      io.answer(status, parts.join("\n\n"), options.json);
    });

  cli.command("stats", "Show resource usage of the running workers")
    .option("--json", "Print it as JSON")
    .action(async (options) => {
      const stats = await workerStats(await view());
      const rows = stats.map((worker) => [
        worker.name,
        figureCell(worker.cpuPercent, (percent) => `${percent.toFixed(1)} %`),
        figureCell(worker.memoryBytes, binarySize),
        figureCell(worker.pids),
      ]);
      const text = columns([["NAME", "CPU", "MEMORY", "PIDS"], ...rows]);
      for (const { name, limitEvents: events } of stats) {
        tellOfPids({ name, events }, io.log);
      }
      io.answer(stats, text, options.json);
    });

  return await runCli(cli, argv, io);
}

/** Stops those that exist; the others are reported afterwards. */
async function stop(
  io: Io,
  instance: Instance,
  names: string[],
  json: boolean,
): Promise<void> {
  const workers = await listWorkers(instance);
  await onEach(
    names.map((name) => ({ name })),
    async ({ name }) =>
      await stopWorker(instance, requireWorker(workers, name), io.log),
    report(io, json),
  );
}

const report = (io: Io, json: boolean) => (done: string[]) =>
  io.answer(done, done.join("\n"), json);

if (import.meta.main) await execute(main);
