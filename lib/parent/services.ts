// Opens the services to workers, in the shared network and in isolated workers: at their
// start, when a service comes or goes, and after nsenter was replaced.

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type Docker,
  inspectContainer,
  removeContainer,
} from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import { canHold, holdPorts } from "../daemon/net.ts";
import { ownContainer } from "../instance/container.ts";
import { type ContainerEvent, keepFollowing } from "../instance/events.ts";
import { chromadbBounds } from "../gateway/services/bounded-proxy.ts";
import type { Instance } from "../instance/instance.ts";
import { openSocket, type Reach } from "../instance/parent-socket.ts";
import { originHeader } from "../std/origin.ts";
import type { ParentState } from "../instance/parent-state.ts";
import type { Log } from "../std/log.ts";
import { Nsenter, NsenterLost } from "../nsenter/container.ts";
import { configuredServers } from "../mcp/offer.ts";
import { markOf, servicesOf } from "../worker/network.ts";
import { listWarm, listWorkers } from "../worker/workers.ts";
import type { ChildSpec, Supervisor } from "./supervisor.ts";

/** Interval of the checks whether a service has come or gone. */
const checkMs = 500;

/** Interval of the attempts to open what could not be opened. */
const retryMs = 2000;

/** Interval in which all workers are checked, in case something was missed. */
const allMs = 60_000;

/** How long an end waits, for what is being opened or for the process. */
const endMs = 1000;

/** The process that serves ChromaDB, and MCP servers behind a tunnel. */
export function servicesChild(
  instance: Pick<Instance, "home" | "settings" | "docker" | "self">,
): ChildSpec {
  const { home, settings } = instance;
  const servers = existsSync(home.tunnel)
    ? [...configuredServers(instance, () => {})]
    : [];
  return {
    name: "services",
    command: [
      "/scripts/services",
      "serve",
      String(settings.CHROMADB_PORT),
      ...servers.map(([name, { port }]) => `${port}=${name}`),
    ],
    logFile: home.childLog("services"),
    watch: {
      answers: () => servicesAnswer(instance),
      everyMs: 5000,
      silentMs: 30_000,
      startMs: 30_000,
    },
  };
}

const answerMs = 10_000;

/**
 * Whether the process answers at ChromaDB's socket. It refuses this request itself, at once,
 * whether or not ChromaDB runs and however much it has to do.
 */
export async function servicesAnswer(
  { settings: { CHROMADB_PORT }, ...reach }:
    & Reach
    & Pick<Instance, "settings">,
  timeoutMs = answerMs,
): Promise<boolean> {
  const socket = openSocket(reach, reach.home.service(CHROMADB_PORT));
  const late = setTimeout(() => socket.destroy(), timeoutMs);
  let text = "";
  try {
    socket.write(originHeader(null));
    socket.write(
      "POST / HTTP/1.1\r\nHost: services\r\nConnection: close\r\n" +
        `Content-Length: ${2 * chromadbBounds.bodyBytes}\r\n\r\n`,
    );
    for await (const chunk of socket) {
      text += chunk;
      if (text.includes("\r\n")) break;
    }
  } catch {
    return false;
  } finally {
    clearTimeout(late);
    socket.destroy();
  }
  return text.startsWith("HTTP/1.1 ");
}

/** Starts the process anew when it has to serve others. */
export async function watchServices(
  instance: Instance,
  supervisor: Pick<Supervisor, "start" | "end">,
  stop: AbortSignal,
): Promise<void> {
  let present = servicesChild(instance);
  while (!stop.aborted) {
    const wanted = servicesChild(instance);
    // Not all of it: each has functions of its own.
    if (!isDeepStrictEqual(wanted.command, present.command)) {
      await supervisor.end(present.name, endMs);
      supervisor.start(wanted);
      present = wanted;
    }
    await sleep(checkMs, undefined, { signal: stop }).catch(() => {});
  }
}

type Changes = Pick<ParentState, "servicesFault" | "shared">;

/** Keeps the services open until `stop` is aborted. Reports what has changed. */
export async function keepServices(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
  changed: (changes: Changes) => void,
): Promise<void> {
  const services = new Services(instance, log, changed);
  services.start();
  const events = keepFollowing(
    instance,
    { actions: ["start", "die", "pause"], stop },
    {
      act: ({ role, action, id, isolated }: ContainerEvent) => {
        if (isolated && action === "start") services.open([id]);
        else if (
          (isolated && action === "die") ||
          (role === "net" && action === "start") ||
          (role === "nsenter" && action !== "start")
        ) services.open();
      },
      missed: () => services.open(),
      log,
    },
  );
  let known: object | undefined;
  let since = Date.now();
  while (!stop.aborted) {
    const now = servicesOf(instance, "isolated");
    const age = Date.now() - since;
    const changed = !isDeepStrictEqual(now, known);
    if (changed || (services.failed && age > retryMs) || age > allMs) {
      services.open();
      since = Date.now();
    }
    known = now;
    await sleep(checkMs, undefined, { signal: stop }).catch(() => {});
  }
  await events;
  await services.end();
}

class Services {
  readonly #instance: Instance;
  readonly #nsenter: Nsenter;
  readonly #log: Log;
  readonly #changed: (changes: Changes) => void;
  #fault: string | null | undefined;
  #shared: Changes["shared"];
  /** The namespace and the ports that its container holds. */
  #held: string | undefined;
  /** Workers in which nothing could be opened at the last attempt. */
  #failing = new Set<string>();
  /** Whether all workers are to be looked at, so that it need not be queued again. */
  #allAreQueued = false;
  /** One at a time: each may have to start nsenter. */
  #queue = Promise.resolve();

  constructor(
    instance: Instance,
    log: Log,
    changed: (changes: Changes) => void,
  ) {
    this.#instance = instance;
    this.#nsenter = new Nsenter(instance);
    this.#log = log;
    this.#changed = changed;
  }

  /** Whether the last attempt is to be repeated. */
  get failed(): boolean {
    return typeof this.#fault === "string" ||
      (this.#shared?.taken.length ?? 0) > 0;
  }

  /** Replaces what an earlier version has left. */
  start(): void {
    this.#queue = this.#queue.then(async () => {
      await removeForwarder(this.#instance);
      const fault = await this.#nsenter.ensure("listeners");
      if (fault !== undefined) this.#report(fault);
    }).catch((error) => this.#report(messageOf(error)));
  }

  /** Leaves open what is open. Does not wait long for an nsenter that is being started. */
  async end(): Promise<void> {
    const closed = this.#queue.then(() => this.#nsenter.close());
    await Promise.race([closed, sleep(endMs, undefined, { ref: false })]);
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
    const { docker } = this.#instance;
    const shared = ids ? undefined : await this.#openShared();
    const workers = ids ?? await this.#isolated();
    const services = servicesOf(this.#instance, "isolated");
    const faults: string[] = [];
    for (const id of workers) {
      const container = await inspectContainer(docker, id);
      const mark = container && markOf(container.Config);
      if (!container?.State.Running || mark === undefined) continue;
      const { State: { Pid: pid }, Name } = container;
      try {
        const request = { id, pid, mark, services, shared: false };
        const isFailing = this.#failing.delete(id);
        const taken = await this.#nsenter.open(request, !isFailing);
        if (taken.length === 0) continue;
        this.#log(
          `"${Name.slice(1)}" occupies ports of services: ${taken.join(", ")}`,
        );
      } catch (error) {
        if (error instanceof NsenterLost) throw error;
        const now = await inspectContainer(docker, id);
        // Else it has ended meanwhile.
        if (now?.State.Pid !== pid) continue;
        this.#failing.add(id);
        faults.push(`"${Name.slice(1)}": ${messageOf(error)}`);
      }
    }
    if (!ids) {
      await this.#nsenter.keep([...workers, ...(shared ? [shared] : [])]);
    }
    // One worker does not keep the services from the others.
    if (faults.length > 0) throw new Error(faults.join("; "));
  }

  /** Opens the services in the shared network; returns the id of its container. */
  async #openShared(): Promise<string | undefined> {
    const { names } = this.#instance;
    const net = await ownContainer(this.#instance, names.net, "net");
    if (!net?.State.Running || net.State.Paused) return undefined;
    const services = servicesOf(this.#instance, "shared");
    const ports = services.map(({ port }) => port);
    const { Id: id, State: { Pid: pid } } = net;
    // Before they are open: a worker must not get them when nsenter ends.
    const held = [id, net.State.StartedAt, ...ports].join(" ");
    if (held !== this.#held && canHold(net)) {
      const taken = await holdPorts(this.#instance, ports);
      this.#held = taken.length === 0 ? held : undefined;
    }
    const mark = sharedMark(net);
    const taken = await this.#nsenter
      .open({ id, pid, mark, services, shared: true });
    const shared = {
      open: ports.filter((port) => !taken.includes(port)),
      taken,
    };
    if (!isDeepStrictEqual(shared, this.#shared)) {
      for (const port of taken) {
        this.#log(
          `Services of workers: port ${port} is occupied by a process in a worker`,
        );
      }
      this.#shared = shared;
      this.#changed({ shared });
    }
    return id;
  }

  /** Ids of the running isolated workers. */
  async #isolated(): Promise<string[]> {
    const workers = [
      ...await listWorkers(this.#instance),
      ...await listWarm(this.#instance),
    ];
    return workers.filter(({ network }) => network === "isolated")
      .map(({ id }) => id);
  }

  #report(fault: string | null): void {
    if (fault === this.#fault) return;
    this.#fault = fault;
    if (fault !== null) this.#log(`Services of workers: ${fault}`);
    this.#changed({ servicesFault: fault });
  }
}

/** Containers of earlier versions have no random variable. */
function sharedMark({ Config }: Docker.ContainerInspectInfo): string {
  return markOf(Config) ?? Config.Env[0] ?? "";
}

/** The container that served the ports in the shared network, and its sockets. */
async function removeForwarder(instance: Instance): Promise<void> {
  const { docker, home, names } = instance;
  const present = await ownContainer(
    instance,
    names.formerForwarder,
    "forwarder",
  );
  if (!present) return;
  await removeContainer(docker, present.Id);
  for (const name of ["forward", "forwarder", "chromadb"]) {
    rmSync(join(home.ways, `${name}.sock`), { force: true });
  }
  // Of MCP servers, whose sockets are now those of the gateway.
  for (const argument of present.Config.Cmd ?? []) {
    const [port, name] = argument.split("=");
    if (name) rmSync(home.service(Number(port)), { force: true });
  }
}
