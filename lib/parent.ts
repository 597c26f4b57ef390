// What runs as the parent: starts its children phase by phase, and says how
// long each phase took.

import { setTimeout as sleep } from "node:timers/promises";
import { chromadbChild, chromadbServes } from "./chromadb.ts";
import { messageOf } from "./errors.ts";
import { pullWorkerImage } from "./images/pull.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { type ParentState, writeParentState } from "./parent-state.ts";
import { readWish } from "./pool/wish.ts";
import { keepReconciled } from "./reconcile.ts";
import { Supervisor } from "./supervisor.ts";
import { duration } from "./units.ts";
import { ensureHome } from "./volumes.ts";
import { waitFor } from "./wait.ts";

/** Together with the others' under the 5 seconds that a stop may take. */
const childStopMs = 2000;

/** Between two looks at whether there is to be a pool. */
const wishEveryMs = 500;

/** Runs the parent until `stop` is aborted, then ends its children in order. */
export async function runParent(
  openInstance: () => Promise<Instance>,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  const state: ParentState = {
    version: 1,
    container: "",
    ready: false,
    phases: [],
    children: [],
  };
  const phase = async <T>(name: string, run: () => Promise<T>): Promise<T> => {
    const startedAt = performance.now();
    const result = await run();
    const ms = Math.round(performance.now() - startedAt);
    state.phases.push({ name, ms });
    log(`Phase "${name}" took ${duration(ms)}`);
    return result;
  };

  const instance = await phase("critical init", async () => {
    const opened = await openInstance();
    ensureHome(opened);
    state.container = opened.self?.Id ?? "";
    return opened;
  });
  const publish = () => {
    state.children = supervisor.states;
    writeParentState(instance, state);
  };
  const supervisor = new Supervisor({
    log,
    changed: publish,
    owner: instance.owner,
  });
  const port = instance.settings.CHROMADB_PORT;
  publish();

  await phase("parallel init", async () => {
    supervisor.start(chromadbChild(port, instance.home.childLog("chromadb")));
    supervisor.start({
      name: "tmux",
      // -D: stays our child instead of becoming a daemon.
      command: [
        "tmux",
        "-L",
        "hal9000",
        "-f",
        "/etc/hal9000/tmux-dashboard.conf",
        "-D",
      ],
      logFile: instance.home.childLog("tmux"),
    });
    await pullWorkerImage(instance, log);
  });
  try {
    await phase(
      "service ready",
      () =>
        waitFor(
          () =>
            stop.aborted || chromadbServes(port, supervisor.pidOf("chromadb")),
          {
            for: "ChromaDB to answer",
            timeoutMs: 60_000,
            everyMs: 10,
            hint: `See ${instance.home.childLog("chromadb")}.`,
          },
        ),
    );
    state.ready = !stop.aborted;
  } catch (error) {
    // It is still being restarted; the health check says how that goes.
    log(messageOf(error));
  }
  publish();
  if (state.ready) {
    const total = state.phases.reduce((sum, { ms }) => sum + ms, 0);
    log(`Ready after ${duration(total)}`);
  }

  await Promise.all([
    keepReconciled(instance, stop, log),
    keepPool(instance, supervisor, stop),
  ]);
  log("Stopping");
  state.ready = false;
  await supervisor.stop(childStopMs);
  log("Stopped");
}

/** Runs the pool manager while there is to be a pool. */
async function keepPool(
  instance: Instance,
  supervisor: Supervisor,
  stop: AbortSignal,
): Promise<void> {
  const name = "pool";
  while (!stop.aborted) {
    const { enabled } = readWish(instance);
    if (enabled && !supervisor.has(name)) {
      supervisor.start({
        name,
        command: ["/scripts/pool-manager", "serve"],
        logFile: instance.home.childLog(name),
      });
    } else if (!enabled) {
      await supervisor.end(name, childStopMs);
    }
    await sleep(wishEveryMs, undefined, { signal: stop }).catch(() => {});
  }
}
