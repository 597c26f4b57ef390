// Runs the parent: starts its children in phases, and logs how long each phase
// took.

import { setTimeout as sleep } from "node:timers/promises";
import {
  chromadbAnswers,
  chromadbChild,
  chromadbFault,
  listenerFault,
} from "./chromadb.ts";
import {
  hasTmux,
  isDashboardDesired,
  serverAnswers,
  serverCommand,
} from "./dashboard/server.ts";
import { inspectContainer } from "../docker/docker.ts";
import { sharedStatus } from "../nsenter/container.ts";
import { egressChild } from "./egress.ts";
import { messageOf } from "../std/errors.ts";
import { keepLoginFresh, LoginRefresh } from "../home/login.ts";
import { pullWorkerImage } from "../image/pull.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { ensureNet, noRequest } from "../daemon/net.ts";
import { refreshNetFiles } from "../worker/net-files.ts";
import { serveParent } from "../instance/parent-socket.ts";
import {
  type ParentState,
  writeParentState,
} from "../instance/parent-state.ts";
import { poolAnswers } from "../pool/client.ts";
import { readDesired } from "../pool/desired.ts";
import { Databases } from "./databases.ts";
import { keepMeasured } from "./disk.ts";
import { keepReconciled } from "./reconcile.ts";
import { keepServices, servicesChild, watchServices } from "./services.ts";
import { keepResumed } from "../session/resume.ts";
import { ensureAuthority } from "../relay/certificates.ts";
import { relayChild } from "./relay.ts";
import { ensureSeccompTried } from "../image/seccomp.ts";
import { type ChildSpec, Supervisor } from "./supervisor.ts";
import { duration } from "../std/units.ts";
import { ensureHome } from "../instance/volumes.ts";

/** Per child; all of them together must end within the 5 seconds of a stop. */
const childStopMs = 2000;

/** Interval of the checks whether the pool and the dashboard are wanted. */
const desiredEveryMs = 500;

/** Intervals of the ChromaDB checks: until it first answers, with a fault, without. */
const healthEveryMs = { starting: 50, faulty: 500, healthy: 2000 };

/** Interval in which they also check who listens, unless they find a fault. */
const listenersEveryMs = 10_000;

/** Reported until the first answer, for at most `startMs`. */
const startingFault = "it is starting";
const startMs = 10_000;

/** Runs the parent until `stop` is aborted, then stops its children in order. */
export async function runParent(
  openInstance: () => Promise<Instance>,
  build: string,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  const state: ParentState = {
    version: 1,
    container: "",
    build,
    ready: false,
    readyMs: null,
    chromadbFault: startingFault,
    shared: { open: [], taken: [] },
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
    state.network = opened.settings.WORKER_NETWORK;
    await ensureOwnNet(opened, log);
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
  const loginRefresh = new LoginRefresh();
  const port = instance.settings.CHROMADB_PORT;
  const desired = desiredChildren(instance, await hasTmux(log));
  publish();
  // Early: a session looks for its MCP servers as soon as it starts.
  const services = keepServices(instance, stop, log, (changes) => {
    Object.assign(state, changes);
    publish();
  });

  await phase("parallel init", async () => {
    supervisor.start({
      ...chromadbChild(port, instance.home.childLog("chromadb")),
      // ChromaDB may answer slowly under load.
      watch: {
        answers: () => chromadbAnswers(port),
        everyMs: watchEveryMs,
        silentMs: 60_000,
        startMs: 120_000,
      },
    });
    supervisor.start(egressChild(instance, log));
    // Before the parent is ready: sessions trust it. The relay's child repeats it.
    await ensureAuthority(instance).catch((error) =>
      log(`The relay gets no certificate: ${messageOf(error)}`)
    );
    supervisor.start(relayChild(instance, loginRefresh, log));
    supervisor.start(servicesChild(instance));
    await Promise.all([
      keepDesired(desired, supervisor),
      pullWorkerImage(instance, log),
    ]);
  });
  // Before it is ready: commands then connect once, to find out whether sockets cross.
  await serveParent(instance, stop).catch((error) =>
    log(`Commands cannot reach the parent: ${messageOf(error)}`)
  );
  if (!stop.aborted) {
    state.ready = true;
    state.readyMs = state.phases.reduce((sum, { ms }) => sum + ms, 0);
    log(`Ready after ${duration(state.readyMs)}`);
  }
  publish();
  const databases = new Databases(instance, log);
  let answered = () => {};
  const serviceReady = phase(
    "service ready",
    () => new Promise<void>((resolve) => answered = resolve),
  );

  await Promise.all([
    followEngine(instance, log),
    keepReconciled(instance, stop, log),
    services,
    keepResumed(instance, stop, log),
    keepLoginFresh(instance, loginRefresh, stop, log),
    keepMeasured(instance, stop, log, (over) => {
      state.overDisk = over;
      publish();
    }),
    databases.keep(stop).catch((error) =>
      log(`Projects have no databases in ChromaDB: ${messageOf(error)}`)
    ),
    watchChromadb(instance, stop, log, async (fault) => {
      if (fault === null) {
        answered();
        void databases.createAll();
        await serviceReady;
      } else {
        log(`ChromaDB: ${fault}`);
      }
      state.chromadbFault = fault;
      publish();
    }),
    watchDesired(desired, supervisor, stop),
    watchServices(instance, supervisor, stop),
    watchPorts(instance, stop, (left) => {
      state.portsLeft = left;
      publish();
    }),
  ]);
  log("Stopping");
  state.ready = false;
  await supervisor.stop(childStopMs);
  log("Stopped");
}

/** Creates the workers' namespace if it is missing, as when started by hand. */
async function ensureOwnNet(instance: Instance, log: Log): Promise<void> {
  const { docker, names, self } = instance;
  if (await inspectContainer(docker, names.net)) return;
  await ensureNet(instance, self?.ImageID ?? "", noRequest, log);
}

/** Calls `changed` whenever ChromaDB's fault changes; null means none. */
async function watchChromadb(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
  changed: (fault: string | null) => Promise<void>,
): Promise<void> {
  const startedAt = performance.now();
  let last: string | null = startingFault;
  let answered = false;
  let listenersCheckedAt = -Infinity;
  const checkListeners = async (port: number) => {
    const now = performance.now();
    if (now - listenersCheckedAt < listenersEveryMs) return undefined;
    const fault = await listenerFault(port);
    if (fault === undefined) listenersCheckedAt = now;
    return fault;
  };
  while (!stop.aborted) {
    let fault = await chromadbFault(instance, checkListeners) ?? null;
    // As when ChromaDB has ended: somebody else may listen next.
    if (answered && fault !== null) listenersCheckedAt = -Infinity;
    answered ||= fault === null;
    const starting = !answered && performance.now() - startedAt < startMs;
    if (starting) fault = startingFault;
    try {
      if (fault !== last) await changed(fault);
      last = fault;
    } catch (error) {
      log(`Cannot write the parent's state: ${messageOf(error)}`);
    }
    const pauseMs = !answered
      ? healthEveryMs.starting
      : fault === null
      ? healthEveryMs.healthy
      : healthEveryMs.faulty;
    await sleep(pauseMs, undefined, { signal: stop }).catch(() => {});
  }
}

/** Calls `changed` when a worker occupies all ports of the shared network, or no longer. */
async function watchPorts(
  { home }: Instance,
  stop: AbortSignal,
  changed: (left: boolean) => void,
): Promise<void> {
  let last: boolean | undefined;
  while (!stop.aborted) {
    // chromadbFault() reports that nsenter does not answer.
    const { portsLeft } = await sharedStatus(home)
      .catch(() => ({ portsLeft: last }));
    if (portsLeft !== undefined && portsLeft !== last) changed(portsLeft);
    last = portsLeft;
    await sleep(healthEveryMs.healthy, undefined, { signal: stop }).catch(
      () => {},
    );
  }
}

/** Refreshes what depends on the engine, which may be restarted or updated. */
async function followEngine(instance: Instance, log: Log): Promise<void> {
  try {
    await refreshNetFiles(instance, instance.names.net);
    await ensureSeccompTried(instance, log);
  } catch (error) {
    log(`warning: ${messageOf(error)}`);
  }
}

/** Interval of the liveness checks of a child. */
const watchEveryMs = 5000;

interface DesiredChild extends ChildSpec {
  isDesired: () => boolean;
}

/** Children that can be turned on and off while the parent runs. */
function desiredChildren(instance: Instance, tmux: boolean): DesiredChild[] {
  const { home } = instance;
  const dashboard = () => tmux && isDashboardDesired(instance);
  return [
    {
      name: "pool",
      command: ["/scripts/pool-manager", "serve"],
      logFile: home.childLog("pool"),
      watch: {
        answers: () => poolAnswers(instance, watchEveryMs),
        everyMs: watchEveryMs,
        silentMs: 30_000,
        startMs: 60_000,
      },
      isDesired: () => readDesired(instance).enabled,
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
      isDesired: dashboard,
    },
    {
      name: "dashboard",
      command: ["/scripts/setup-dashboard", "serve"],
      logFile: home.childLog("dashboard"),
      isDesired: dashboard,
    },
  ];
}

async function watchDesired(
  children: DesiredChild[],
  supervisor: Supervisor,
  stop: AbortSignal,
): Promise<void> {
  while (!stop.aborted) {
    await keepDesired(children, supervisor);
    await sleep(desiredEveryMs, undefined, { signal: stop }).catch(() => {});
  }
}

async function keepDesired(
  children: DesiredChild[],
  supervisor: Supervisor,
): Promise<void> {
  for (const child of children) {
    const { name } = child;
    if (!child.isDesired()) await supervisor.end(name, childStopMs);
    else if (!supervisor.has(name)) supervisor.start(child);
  }
}
