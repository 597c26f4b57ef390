// Which processes listen on which ports of the workers' network namespaces.

import { inspectContainer } from "../docker/docker.ts";
import { lookAtContainers } from "../helper/helper.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { readParentState } from "../instance/parent-state.ts";
import { portsEach } from "../instance/port-range.ts";
import type { Look } from "../helper/processes.ts";
import { readSessions } from "../instance/session-record.ts";
import { servicesOf } from "../worker/network.ts";
import { listWorkers } from "../worker/workers.ts";

export interface Listener {
  port: number;
  /** The listening address, from the kernel's tables. */
  address: string;
  /** The container of the process; null if not a worker, the parent or nsenter. */
  container: string | null;
  session: string | null;
  process: string | null;
  /** The session that the port is reserved for, if it is a different one. */
  reservedFor: string | null;
  /** The id of the isolated worker that has the port; null for the shared network. */
  isolated: string | null;
}

export interface Listening {
  listeners: Listener[];
  /** Containers whose listeners are not all listed, and why. */
  incomplete: { container: string; reason: string }[];
}

export interface Candidate {
  id: string;
  name: string;
  session: string | null;
}

interface Range {
  name: string;
  portBase?: number | undefined;
}

export async function listListeners(
  instance: Instance,
  log: Log,
): Promise<Listening> {
  const { docker, names } = instance;
  const parent = instance.self ?? await findParent(instance);
  const net = await inspectContainer(docker, names.net);
  const workers = (await listWorkers(instance))
    .filter(({ state }) => state === "running" || state === "paused");
  const own: Candidate[] = [
    ...(parent?.State === "running"
      ? [{ id: parent.Id, name: names.parent, session: null }]
      : []),
  ];
  // Without a net container, a manually started parent owns the namespace.
  const holder = net?.State.Running
    ? net
    : parent && await inspectContainer(docker, parent.Id);
  const candidates = [...own, ...workers];
  const look = await lookAtContainers(instance, {
    netPid: holder?.State.Pid || null,
    containers: candidates.map(({ id }) => id),
  });
  const listening = ofNsenter(look.listening, {
    isolated: servicesOf(instance, "isolated").map(({ port }) => port),
    shared: readParentState(instance)?.shared?.open ?? [],
  });
  const nsenter = { id: nsenterId, name: names.nsenter, session: null };
  const sessions = readSessions(instance, log);
  return nameListeners(
    { ...look, listening },
    [...candidates, nsenter],
    sessions,
  );
}

/** Stands for its container, whose processes are not searched: it has the host's. */
export const nsenterId = "nsenter";

/**
 * Adds whose the listeners without a known process are. The services that nsenter opens
 * in isolated workers are left out; everything else there is the worker's own.
 */
export function ofNsenter(
  listening: Look["listening"],
  opened: { isolated: number[]; shared: number[] },
): Look["listening"] {
  return listening.flatMap((listener) => {
    const { network, container, port } = listener;
    if (container !== null) return [listener];
    if (network === null) {
      return opened.shared.includes(port)
        ? [{ ...listener, container: nsenterId, process: "nsenter" }]
        : [listener];
    }
    return opened.isolated.includes(port)
      ? []
      : [{ ...listener, container: network }];
  });
}

/** Limit per container: a worker can listen on every port. */
const maxRows = 100;

/** Replaces container ids by names, and adds the session that each port belongs to. */
export function nameListeners(
  look: Look,
  candidates: Candidate[],
  sessions: Range[],
): Listening {
  const byId = new Map(candidates.map((known) => [known.id, known]));
  const counts = new Map<string | null, number>();
  const listeners: Listener[] = [];
  const inOrder = look.listening.toSorted((a, b) => a.port - b.port);
  for (const { port, address, network, container, process } of inOrder) {
    const count = (counts.get(container) ?? 0) + 1;
    counts.set(container, count);
    if (count > maxRows) continue;
    const known = container === null ? undefined : byId.get(container);
    const session = known?.session ?? null;
    const range = network !== null
      ? session
      : sessions.find(({ portBase }) =>
        portBase !== undefined && port >= portBase &&
        port < portBase + portsEach
      )?.name ?? null;
    listeners.push({
      port,
      address,
      container: known?.name ?? null,
      session,
      process,
      reservedFor: range === session ? null : range,
      isolated: network,
    });
  }
  const name = (id: string | null) =>
    (id !== null && byId.get(id)?.name) || "unknown";
  return {
    listeners,
    incomplete: [
      ...look.containers.filter(({ incomplete }) => incomplete).map((
        { id },
      ) => ({
        container: name(id),
        reason: "has too many open files to inspect them all",
      })),
      ...[...counts].filter(([, count]) => count > maxRows).map((
        [id, count],
      ) => ({
        container: name(id),
        reason: `listens on ${count - maxRows} more ports`,
      })),
    ],
  };
}
