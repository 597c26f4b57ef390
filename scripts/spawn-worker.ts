#!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")"/launch "$0" "$@"'
// spawn-worker: starts a worker on a project; prints its id, or attaches to it.

import process from "node:process";
import { runDocker } from "../lib/docker-cli.ts";
import { retireWorker } from "../lib/ending.ts";
import { type Docker, inspectContainer } from "../lib/docker.ts";
import { Failure } from "../lib/errors.ts";
import { type Instance, openInstance } from "../lib/instance.ts";
import { logToStderr } from "../lib/log.ts";
import { readSecrets } from "../lib/secrets.ts";
import { prepareWorker, type SpawnRequest, spawnWorker } from "../lib/spawn.ts";
import { waitFor } from "../lib/wait.ts";
import { checkVariable } from "../lib/worker.ts";
import { command, runCli } from "./cli.ts";
import { flagsOf, listOf } from "./options.ts";
import { answer } from "./output.ts";

const cli = command("spawn-worker");

/** Longer than an interrupted command takes to end. */
const settleMs = 1000;

const limitOptions = {
  memory: "WORKER_MEMORY",
  cpus: "WORKER_CPUS",
  pidsLimit: "WORKER_PIDS_LIMIT",
} as const;

cli.command(
  "[project_dir]",
  "Start a worker on a project (default: the current directory)",
)
  .usage("[options] [project_dir] [-- command...]")
  .option("-n, --name <name>", "Name of the worker (default: made up)")
  .option(
    "-d, --detach",
    "Run in the background and print the id (default: attach)",
  )
  .option("-i, --image <image>", "Image (default: WORKER_IMAGE, else :worker)")
  .option("--rm", "Remove the worker when it ends, keep its log (default)")
  .option("--no-rm", "Keep the worker when it ends")
  .option("--memory <size>", "Memory limit (default: WORKER_MEMORY, else 4g)")
  .option("--cpus <n>", "CPU limit (default: WORKER_CPUS, else 2)")
  .option(
    "--pids-limit <n>",
    "Process limit (default: WORKER_PIDS_LIMIT, else 100)",
  )
  .option("--no-limits", "No limits on memory, CPUs and processes")
  .option(
    "--env <KEY=VALUE>",
    "Variable that docker inspect shows; repeatable",
    {
      type: [String],
    },
  )
  .option(
    "--secret <NAME[=FILE]>",
    "File /run/secrets/NAME, from FILE or the variable NAME; repeatable",
    { type: [String] },
  )
  .option("--mount <SRC:DST[:ro]>", "Further mount; repeatable", {
    type: [String],
  })
  .option("--allow-any-path", "Mount system directories and HAL9000_HOME too")
  .option("--standalone", "A network of its own: no parent, no ChromaDB")
  .option("--json", "With --detach: print id, name, project and image as JSON")
  .example("spawn-worker -d -n my-worker ~/code/app")
  .example("spawn-worker ~/code/app -- make test")
  .action(async (directory: string | undefined, options) => {
    const limited = options.limits !== false;
    const flags = flagsOf(options, limitOptions);
    if (!limited && Object.keys(flags).length > 0) {
      throw new Failure(
        "usage",
        "--no-limits leaves no room for another limit",
      );
    }
    const instance = await openInstance(process.env, logToStderr, flags);
    const cwd = process.cwd();
    const request: SpawnRequest = {
      directory: directory ?? ".",
      cwd,
      name: options.name,
      image: options.image === undefined ? undefined : String(options.image),
      limited,
      keep: options.rm === false,
      standalone: options.standalone ?? false,
      allowAnyPath: options.allowAnyPath ?? false,
      mounts: listOf(options.mount),
      env: listOf(options.env).map(checkVariable),
      secrets: readSecrets(
        listOf(options.secret),
        process.env,
        instance.host,
        cwd,
      ),
      command: options["--"]?.length > 0 ? options["--"] : undefined,
    };
    if (!options.detach) return await attach(instance, request, options.json);
    const worker = await spawnWorker(instance, request, logToStderr);
    answer(worker, worker.id, options.json);
  });

await runCli(cli);

/** Runs the worker at this terminal until it ends; gives its exit code. */
async function attach(
  instance: Instance,
  request: SpawnRequest,
  json: boolean,
): Promise<number> {
  if (json) throw new Failure("usage", "--json needs --detach");
  const terminal = process.stdin.isTTY === true;
  if (!terminal && !request.command) {
    throw new Failure("usage", "Cannot attach: stdin is no terminal", {
      hint: "Spawn with --detach, or give a command behind --.",
    });
  }
  const { worker } = await prepareWorker(instance, {
    ...request,
    command: request.command ?? ["claude"],
    terminal,
  }, logToStderr);
  const code = await runDocker([
    "start",
    "--attach",
    "--interactive",
    worker.id,
  ]);
  const present = await settled(instance, worker.id);
  if (present?.State.Running) {
    logToStderr(`Detached; again: coordinator attach ${worker.name}`);
  } else if (!request.keep) {
    await retireWorker(instance, worker, logToStderr);
  }
  return present && !present.State.Running ? present.State.ExitCode : code;
}

/** docker leaves an interrupted worker before it has ended; it is given time. */
async function settled(
  { docker }: Instance,
  id: string,
): Promise<Docker.ContainerInspectInfo | undefined> {
  let present: Docker.ContainerInspectInfo | undefined;
  await waitFor(async () => {
    present = await inspectContainer(docker, id);
    return !present?.State.Running;
  }, { for: "the worker to end", timeoutMs: settleMs }).catch(() => {
    // It goes on: somebody has detached from it.
  });
  return present;
}
