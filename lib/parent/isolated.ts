// Opens the services in isolated workers: at their start, when a service comes or goes, and
// after nsenter was replaced.

import { setTimeout as sleep } from "node:timers/promises";
import { inspectContainer } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import { type ContainerEvent, keepFollowing } from "../instance/events.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { Nsenter, NsenterLost } from "../nsenter/container.ts";
import { markOf, openedPorts } from "../worker/network.ts";
import { listWarm, listWorkers } from "../worker/workers.ts";

/** Interval of the checks whether a service has come or gone. */
const checkMs = 1000;

/** Interval in which all workers are checked, in case something was missed. */
const allMs = 60_000;

/** Keeps the services open until `stop` is aborted. Reports why it cannot, or null. */
export async function keepIsolated(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
  changed: (fault: string | null) => void,
): Promise<void> {
  const services = new Services(instance, log, changed);
  const events = keepFollowing(
    instance,
    { actions: ["start", "die"], stop },
    {
      act: ({ role, action, id, isolated }: ContainerEvent) => {
        if (isolated && action === "start") services.open([id]);
        else if (isolated || (role === "nsenter" && action === "die")) {
          services.open();
        }
      },
      missed: () => services.open(),
      log,
    },
  );
  let ports: string | undefined;
  let since = Date.now();
  while (!stop.aborted) {
    const now = openedPorts(instance.home).join();
    if (now !== ports || services.failed || Date.now() - since > allMs) {
      services.open();
      since = Date.now();
    }
    ports = now;
    await sleep(checkMs, undefined, { signal: stop }).catch(() => {});
  }
  await events;
  await services.close();
}

class Services {
  readonly #instance: Instance;
  readonly #nsenter: Nsenter;
  readonly #log: Log;
  readonly #changed: (fault: string | null) => void;
  #fault: string | null | undefined;
  #any = false;
  /** Whether all workers are to be looked at, so that it need not be queued again. */
  #allAreQueued = false;
  /** One at a time: each may have to start nsenter. */
  #queue = Promise.resolve();

  constructor(
    instance: Instance,
    log: Log,
    changed: (fault: string | null) => void,
  ) {
    this.#instance = instance;
    this.#nsenter = new Nsenter(instance);
    this.#log = log;
    this.#changed = changed;
  }

  /** Whether the last attempt failed, so that it is to be repeated. */
  get failed(): boolean {
    return typeof this.#fault === "string";
  }

  /** Opens the services in these workers; by default in all, and in no other. */
  open(ids?: string[]): void {
    if (ids === undefined && this.#allAreQueued) return;
    this.#allAreQueued ||= ids === undefined;
    this.#queue = this.#queue.then(() => {
      if (ids === undefined) this.#allAreQueued = false;
      return this.#openOrStart(ids);
    })
      .catch((error) => this.#report(messageOf(error)));
  }

  async close(): Promise<void> {
    await this.#queue;
    this.#nsenter.close();
  }

  async #openOrStart(ids: string[] | undefined): Promise<void> {
    try {
      await this.#openIn(ids);
    } catch (error) {
      if (!(error instanceof NsenterLost)) throw error;
      const fault = await this.#nsenter.ensure("listeners");
      if (fault !== undefined) return this.#report(fault);
      // A new one has opened nothing yet.
      await this.#openIn(undefined);
    }
    this.#report(null);
  }

  async #openIn(ids: string[] | undefined): Promise<void> {
    const { docker, home } = this.#instance;
    const ports = openedPorts(home);
    const workers = ids ?? await this.#isolated();
    for (const id of workers) {
      const container = await inspectContainer(docker, id);
      const mark = container && markOf(container.Config);
      if (!container?.State.Running || mark === undefined) continue;
      const { State: { Pid: pid }, Name } = container;
      try {
        const taken = await this.#nsenter.open({ id, pid, mark, ports });
        if (taken.length === 0) continue;
        this.#log(`"${Name.slice(1)}" occupies ports of services: ${taken}`);
      } catch (error) {
        const now = await inspectContainer(docker, id);
        if (now?.State.Pid === pid) throw error;
        // It has ended meanwhile.
      }
    }
    // Not if there are none: then nsenter need not run.
    if (ids === undefined && this.#any) await this.#nsenter.keep(workers);
    if (ids === undefined) this.#any = workers.length > 0;
    else this.#any = true;
  }

  /** Ids of the running isolated workers. */
  async #isolated(): Promise<string[]> {
    const workers = [
      ...await listWorkers(this.#instance),
      ...await listWarm(this.#instance),
    ];
    return workers.filter(({ network }) => network === "isolated").map((
      { id },
    ) => id);
  }

  #report(fault: string | null): void {
    if (fault === this.#fault) return;
    this.#fault = fault;
    if (fault !== null) this.#log(`Services of isolated workers: ${fault}`);
    // Null also if there was nothing to do.
    if (fault !== null || this.#any) this.#changed(fault);
  }
}
