// Shows a session or a shell in this terminal, and says afterwards how it ended.

import { constants } from "node:os";
import { join } from "node:path";
import type { Io } from "../cli/io.ts";
import { inspectContainer } from "../docker/docker.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { type Ending, readEnding } from "../session/activity.ts";
import { showInWorker, type Shown } from "../session/tmux.ts";
import { Failure } from "../std/errors.ts";
import { waitFor } from "../std/wait.ts";
import { limitEvents, tellOfPids } from "../worker/limit-events.ts";
import { tellOfMemory } from "../worker/status.ts";

/** Returns the exit code; throws a Failure if Claude ended with an error. */
export async function showSession(
  io: Io,
  instance: Instance,
  { name }: { name: string },
  { worker, shown }: { worker: { id: string; name: string }; shown: Shown },
): Promise<number> {
  const since = Date.now();
  const reportLimits = await watchLimits(io, instance, { name }, worker);
  const code = await showInWorker(instance.docker, worker.id, io.env, shown);
  const ranOut = await reportLimits();
  if (code === killed && await workerHasEnded(instance, worker.id)) {
    io.log(
      `The worker has ended. Resume the session with: claudy attach ${name}`,
    );
    return code;
  }
  if (shown.what === "shell") return code;
  const ending = endingSince(instance, name, since);
  if (ending) reportEnding(io, name, ending, { ranOut });
  if (code === 0) {
    io.log(
      ending
        ? `Claude ended. Resume the session with: claudy attach ${name}`
        : `Detached. Reattach with: claudy attach ${name}`,
    );
  }
  return code;
}

/**
 * Returns what reports the limits that the worker has reached since this call, and whether
 * it ran out of memory.
 */
export async function watchLimits(
  io: Io,
  instance: Instance,
  session: { name: string },
  worker: { id: string; name: string },
): Promise<() => Promise<boolean>> {
  const since = Date.now();
  const before = await limitEvents(instance, worker.id);
  return async () => {
    const after = await limitEvents(instance, worker.id);
    if (after?.pidsRefused !== before?.pidsRefused) {
      tellOfPids({ name: worker.name, events: after }, io.log);
    }
    return await tellOfMemory(instance, worker, {
      since,
      killed: (after?.oomKills ?? 0) > (before?.oomKills ?? 0),
      hint:
        "Set a higher WORKER_MEMORY in config/hal9000.conf, stop the session " +
        `and open it again: claudy stop ${session.name}`,
    }, io.log);
  };
}

const killed = 128 + constants.signals.SIGKILL;

/** How long a container may still count as running after its processes were killed. */
const settleMs = 1000;

async function workerHasEnded(
  { docker }: Pick<Instance, "docker">,
  id: string,
): Promise<boolean> {
  const ended = async () =>
    !(await inspectContainer(docker, id))?.State.Running;
  return await waitFor(ended, { for: "its end", timeoutMs: settleMs })
    .then(() => true, () => false);
}

/** The kernel's clock for the times of files lags behind by up to 10 ms. */
const fileClockLagMs = 20;

/** How Claude has ended since then; undefined if it still runs. */
export function endingSince(
  { home }: Pick<Instance, "home">,
  session: string,
  since: number,
): Ending | undefined {
  const ending = readEnding(join(home.home, sessionHome(session)));
  return ending && ending.atMs >= since - fileClockLagMs ? ending : undefined;
}

/** Throws a Failure if it ended with an error, after what it said last. */
export function reportEnding(
  io: Io,
  session: string,
  { exitCode, lines }: Ending,
  { ranOut }: { ranOut: boolean },
): void {
  if (exitCode === 0) return;
  for (const line of lines) io.log(line);
  throw new Failure("failed", `Claude ended with exit code ${exitCode}`, {
    // The same would happen again.
    hint: ranOut ? undefined : `Start it again with: claudy attach ${session}`,
  });
}
