// What runs as the parent: starts its children phase by phase, and says how
// long each phase took.

import { setTimeout as sleep } from "node:timers/promises";
import { chromadbChild, chromadbServes } from "./chromadb.ts";
import {
  hasTmux,
  isDashboardWished,
  serverAnswers,
  serverCommand,
} from "./dashboard/server.ts";
import { holderOf } from "./docker.ts";
import { Failure, messageOf } from "./errors.ts";
import { keepLoginFresh } from "./login.ts";
import { serveForward } from "./forward.ts";
import { pullWorkerImage } from "./images/pull.ts";
import type { Instance } from "./instance.ts";
import type { Log } from "./log.ts";
import { networkOf } from "./net.ts";
import { refreshNetFiles } from "./net-files.ts";
import { type ParentState, writeParentState } from "./parent-state.ts";
import { poolAnswers } from "./pool/client.ts";
import { readWish } from "./pool/wish.ts";
import { keepReconciled } from "./reconcile.ts";
import { ensureSeccompTried } from "./seccomp.ts";
import { type ChildSpec, Supervisor } from "./supervisor.ts";
import { duration } from "./units.ts";
import { ensureHome } from "./volumes.ts";
import { waitFor } from "./wait.ts";

/** Together with the others' under the 5 seconds that a stop may take. */
const childStopMs = 2000;

/** Between two looks at whether there is to be a pool. */
const wishEveryMs = 500;

/**
 * Runs the parent until `stopped` is aborted, then ends its children in order. Throws
 * a Failure where its network was lost: started again, it joins the new one.
 */
export async function runParent(
  openInstance: () => Promise<Instance>,
  build: string,
  stopped: AbortSignal,
  log: Log,
): Promise<void> {
  const lost = new AbortController();
  const stop = AbortSignal.any([stopped, lost.signal]);
  const state: ParentState = {
    version: 1,
    container: "",
    build,
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
  const wished = wishedChildren(instance, await hasTmux(log));
  publish();

  await phase("parallel init", async () => {
    supervisor.start({
      ...chromadbChild(port, instance.home.childLog("chromadb")),
      // Under load it may be slow to answer.
      watch: {
        answers: (pid) => chromadbServes(port, pid),
        everyMs: watchEveryMs,
        silentMs: 60_000,
        startMs: 120_000,
      },
    });
    await keepWished(wished, supervisor);
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
    followEngine(instance, log),
    keepReconciled(instance, stop, log, () => lost.abort()),
    keepLoginFresh(instance, stop, log),
    serveForward(instance, stop).catch((error) =>
      log(`No port can be opened to the host: ${messageOf(error)}`)
    ),
    watchWishes(wished, supervisor, stop),
  ]);
  log("Stopping");
  state.ready = false;
  await supervisor.stop(childStopMs);
  log("Stopped");
  if (lost.signal.aborted) {
    throw new Failure("failed", "The network of the parent has ended", {
      hint: "The engine starts the parent again, in the new network.",
    });
  }
}

/** An engine that was started again, or is a newer one, changes what was kept. */
async function followEngine(instance: Instance, log: Log): Promise<void> {
  const { self } = instance;
  try {
    const holder = self && holderOf(networkOf(self));
    if (holder) await refreshNetFiles(instance, holder);
    await ensureSeccompTried(instance, log);
  } catch (error) {
    log(`warning: ${messageOf(error)}`);
  }
}

/** Between two looks at whether a child answers. */
const watchEveryMs = 5000;

interface WishedChild extends ChildSpec {
  isWished: () => boolean;
}

/** Those that people turn on and off while the parent runs. */
function wishedChildren(instance: Instance, tmux: boolean): WishedChild[] {
  const { home } = instance;
  const dashboard = () => tmux && isDashboardWished(instance);
  return [
    {
      name: "pool",
      command: ["/scripts/pool-manager", "serve"],
      logFile: home.childLog("pool"),
      watch: {
        answers: () => poolAnswers(home.poolSocket, watchEveryMs),
        everyMs: watchEveryMs,
        silentMs: 30_000,
        startMs: 60_000,
      },
      isWished: () => readWish(instance).enabled,
    },
    {
      name: "tmux",
      command: serverCommand,
      logFile: home.childLog("tmux"),
      watch: {
        answers: serverAnswers,
        everyMs: 3 * watchEveryMs,
        silentMs: 30_000,
        startMs: 60_000,
      },
      isWished: dashboard,
    },
    {
      name: "dashboard",
      command: ["/scripts/setup-dashboard", "serve"],
      logFile: home.childLog("dashboard"),
      isWished: dashboard,
    },
  ];
}

async function watchWishes(
  children: WishedChild[],
  supervisor: Supervisor,
  stop: AbortSignal,
): Promise<void> {
  while (!stop.aborted) {
    await keepWished(children, supervisor);
    await sleep(wishEveryMs, undefined, { signal: stop }).catch(() => {});
  }
}

async function keepWished(
  children: WishedChild[],
  supervisor: Supervisor,
): Promise<void> {
  for (const child of children) {
    const { name } = child;
    if (!child.isWished()) await supervisor.end(name, childStopMs);
    else if (!supervisor.has(name)) supervisor.start(child);
  }
}
