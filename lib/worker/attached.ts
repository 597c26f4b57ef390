// A worker that lives at the terminal it was spawned from.

import { constants } from "node:os";
import process from "node:process";
import { type Docker, inspectContainer } from "../docker/docker.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { retireWorker, stopWorker } from "./ending.ts";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { attachTerminal } from "../docker/terminal.ts";
import { prepareWorker, type SpawnRequest } from "./spawn.ts";
import { tellOfMemory } from "./status.ts";
import { waitFor } from "../std/wait.ts";

/**
 * Longer than an interrupted command takes to end, and than a busy engine takes to say
 * so. Only from a terminal can a worker be left that goes on.
 */
const settleMs = { detachable: 1000, bound: 10_000 };

/** Runs a worker at this terminal until it ends; gives its exit code. */
export async function runAttached(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<number> {
  const terminal = process.stdin.isTTY === true;
  if (!terminal && !request.command) {
    throw new Failure("usage", "Cannot attach: stdin is not a terminal", {
      hint: "Spawn with --detach, or give a command behind --.",
    });
  }
  const { worker } = await prepareWorker(instance, {
    ...request,
    command: request.command ?? ["claude"],
    terminal,
  }, log);
  const since = Date.now();
  const code = terminal
    ? await attachTerminal(instance.docker, worker.id, { start: true })
    : await runDocker(
      ["start", "--attach", "--interactive", worker.id],
      { filtered: true },
    );
  const bound = !terminal && code <= 128;
  const present = await settled(
    instance,
    worker.id,
    bound ? settleMs.bound : settleMs.detachable,
  );
  if (code !== 0) {
    const hint =
      "Give it more: --memory, or WORKER_MEMORY in config/hal9000.conf.";
    await tellOfMemory(instance, worker, { since, hint }, log);
  }
  if (present?.State.Running && !terminal) {
    // docker was told to end before it could pass that on. Its code may be 0 then.
    await stopWorker(instance, worker, log);
    return code > 128 ? code : 128 + constants.signals.SIGINT;
  }
  if (present?.State.Running) {
    log(`Detached. Reattach with: coordinator attach ${worker.name}`);
  } else if (!request.keep) {
    await retireWorker(instance, worker, log);
  }
  return present && !present.State.Running ? present.State.ExitCode : code;
}

/** docker leaves an interrupted worker before it has ended; it is given time. */
async function settled(
  { docker }: Instance,
  id: string,
  timeoutMs: number,
): Promise<Docker.ContainerInspectInfo | undefined> {
  let present: Docker.ContainerInspectInfo | undefined;
  await waitFor(async () => {
    present = await inspectContainer(docker, id);
    return !present?.State.Running;
  }, { for: "the worker to end", timeoutMs }).catch(() => {
    // It goes on: somebody has detached from it.
  });
  return present;
}
