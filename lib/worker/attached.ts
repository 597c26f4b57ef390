// A worker attached to the terminal or the pipes of spawn-worker.

import { constants } from "node:os";
import process from "node:process";
import { type Docker, inspectContainer } from "../docker/docker.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { retireWorker, stopWorker } from "./ending.ts";
import { Failure } from "../std/errors.ts";
import { interceptSignals } from "../std/signals.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { attachTerminal } from "../docker/terminal.ts";
import type { SpawnRequest } from "./request.ts";
import { type LimitEvents, limitEvents, tellOfPids } from "./limit-events.ts";
import { prepareWorker, type SpawnedWorker } from "./spawn.ts";
import { tellOfMemory } from "./status.ts";
import { waitFor } from "../std/wait.ts";

/**
 * How long to wait for the worker to exit after the client has: longer than an
 * interrupted command needs to exit and a busy engine to report it. A terminal can also
 * detach from a worker that keeps running, so there the wait is short.
 */
const exitTimeoutMs = { detachable: 1000, bound: 10_000 };

/** Runs a worker in the foreground until it exits; returns its exit code. */
export async function runAttached(
  instance: Instance,
  request: SpawnRequest,
  log: Log,
): Promise<number> {
  const terminal = process.stdin.isTTY === true;
  if (!terminal && !request.command) {
    throw new Failure("usage", "Cannot attach: stdin is not a terminal", {
      hint: "Pass --detach, or a command after --.",
    });
  }
  const { worker } = await prepareWorker(instance, {
    ...request,
    command: request.command ?? ["claude"],
    terminal,
  }, log);
  // A second interrupt must not leave the worker running: it only ends the wait.
  let interrupted = false;
  const restoreSignals = interceptSignals(() => {
    interrupted = true;
  });
  try {
    return await attachUntilExit(instance, worker, {
      terminal,
      keep: request.keep ?? false,
      interrupted: () => interrupted,
    }, log);
  } finally {
    restoreSignals();
  }
}

async function attachUntilExit(
  instance: Instance,
  worker: SpawnedWorker,
  { terminal, keep, interrupted }: {
    terminal: boolean;
    keep: boolean;
    interrupted: () => boolean;
  },
  log: Log,
): Promise<number> {
  const since = Date.now();
  const watch = watchLimits(instance, worker.id);
  let code: number;
  try {
    code = terminal
      ? await attachTerminal(instance.docker, worker.id, { start: true })
      : await runDocker(
        ["start", "--attach", "--interactive", worker.id],
        { filtered: true },
      );
  } finally {
    const events = watch.end();
    tellOfPids({ name: worker.name, events, runs: false }, log);
  }
  const bound = !terminal && code <= 128;
  const present = await waitForExit(
    instance,
    worker.id,
    bound ? exitTimeoutMs.bound : exitTimeoutMs.detachable,
    interrupted,
  );
  if (code !== 0) {
    const hint =
      "Raise the limit: --memory, or WORKER_MEMORY in config/hal9000.conf.";
    await tellOfMemory(instance, worker, { since, hint }, log);
  }
  if (present?.State.Running && !terminal) {
    // The docker client was interrupted before it forwarded the signal: stop the
    // worker here. The client's exit code may be 0 in this case.
    await stopWorker(instance, worker, log, { keep });
    return code > 128 ? code : 128 + constants.signals.SIGINT;
  }
  if (present?.State.Running) {
    log(`Detached. Reattach with: claudy attach ${worker.name}`);
  } else if (!keep) {
    await retireWorker(instance, worker, log);
  }
  return present && !present.State.Running ? present.State.ExitCode : code;
}

/** Reads the events each second: they are lost when the worker ends. */
function watchLimits(instance: Instance, id: string) {
  let last: LimitEvents | null = null;
  const timer = setInterval(async () => {
    last = await limitEvents(instance, id) ?? last;
  }, 1000);
  return {
    end: () => {
      clearInterval(timer);
      return last;
    },
  };
}

/** An interrupted docker client may exit before the worker does: waits for the worker. */
async function waitForExit(
  { docker }: Pick<Instance, "docker">,
  id: string,
  timeoutMs: number,
  interrupted: () => boolean,
): Promise<Docker.ContainerInspectInfo | undefined> {
  let present: Docker.ContainerInspectInfo | undefined;
  await waitFor(async () => {
    present = await inspectContainer(docker, id);
    return !present?.State.Running || interrupted();
  }, { for: "the worker to end", timeoutMs }).catch(() => {
    // Still running: the user has detached.
  });
  return present;
}
