#!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")"/launch "$0" "$@"'
// spawn-worker: starts a worker on a project and prints its id.

import process from "node:process";
import { Failure } from "../lib/errors.ts";
import { openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { spawnWorker } from "../lib/spawn.ts";
import { answer, command, runCli } from "./cli.ts";

const cli = command("spawn-worker");

cli.command("[project_dir]", "Start a worker on a project (default: here)")
  .option("-n, --name <name>", "Name of the worker (default: made up)")
  .option("-d, --detach", "Run in the background and print the id")
  .option("-i, --image <image>", "Image (default: WORKER_IMAGE, else :worker)")
  .option("--json", "Print id, name, project and image as JSON")
  .action(async (directory: string | undefined, options) => {
    if (!options.detach) {
      throw new Failure("usage", "Cannot attach to a worker yet", {
        hint: "Spawn it with --detach; then: docker exec -it NAME claude",
      });
    }
    const instance = await openInstance(process.env, logToStderr);
    const worker = await spawnWorker(instance, {
      directory: directory ?? ".",
      cwd: process.cwd(),
      name: options.name,
      image: options.image,
    });
    answer(worker, worker.id, options.json);
  });

await runCli(cli);
