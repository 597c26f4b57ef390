// Waits until workers can reach the services, which the parent opens to them.

import { inspectContainer } from "../docker/docker.ts";
import { askProxy } from "../egress/ask.ts";
import type { Instance } from "../instance/instance.ts";
import { openSocket } from "../instance/parent-socket.ts";
import { readParentState } from "../instance/parent-state.ts";
import { relayPort } from "../relay/names.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";
import type { WorkerState } from "../worker/workers.ts";
import { servicePorts } from "./net.ts";

/** It takes some tenths of a second; more if nsenter has to be started. */
const openMs = 10_000;

/** ChromaDB takes most of it. */
const answerMs = 15_000;

/**
 * Waits until exactly the configured services are open in the shared network: the next
 * command may use one, or the port of one that was removed. Does not wait for ports that a
 * worker occupies, nor for a parent that is not ready. Throws a `failed` Failure if the
 * services cannot be opened.
 */
export async function waitForPorts(
  instance: Pick<Instance, "docker" | "home" | "names" | "owner" | "settings">,
): Promise<void> {
  const { docker, names } = instance;
  const parent = await inspectContainer(docker, names.parent);
  if (!parent?.State.Running) return;
  // The relay's is opened together with the others, if the parent has the setting.
  const others = (ports: number[]) =>
    ports.filter((port) => port !== relayPort);
  const ports = others(servicePorts(instance));
  const hint = "See what is wrong: claudy doctor";
  await waitFor(() => {
    const { ready, shared, servicesFault } = readParentState(instance) ?? {};
    // Without a list, it is of an earlier version, which serves them by itself.
    if (!ready || !shared) return true;
    if (servicesFault) {
      const message = `Workers get no services: ${servicesFault}`;
      throw new Failure("failed", message, { hint });
    }
    const known = others([...shared.open, ...shared.taken]);
    return known.length === ports.length &&
      ports.every((port) => known.includes(port));
  }, { for: "the services to be open to workers", timeoutMs: openMs, hint });
}

/**
 * Waits until isolated workers reach the parent's services again, if there are any. Call
 * after the start of a parent. Only warns if a service does not answer in time.
 */
export async function waitForServices(
  instance: Instance,
  workers: WorkerState[],
  log: Log,
  timeoutMs = answerMs,
): Promise<void> {
  const isOne = ({ state, network }: WorkerState) =>
    state === "running" && network === "isolated";
  if (!workers.some(isOne)) return;
  let fault: string | null = null;
  const answer = async () => (fault = await faultOf(instance)) === null;
  try {
    await waitFor(answer, { for: "services", timeoutMs, everyMs: 50 });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    log(`warning: Isolated workers do not reach all services yet: ${fault}`);
  }
}

/** Null if they answer. */
async function faultOf(instance: Instance): Promise<string | null> {
  const state = readParentState(instance);
  if (state?.servicesFault === undefined) return "they are not open yet";
  if (state.servicesFault !== null) return state.servicesFault;
  if (state.chromadbFault !== null) return `ChromaDB: ${state.chromadbFault}`;
  try {
    const socket = openSocket(instance, instance.home.egressSocket);
    // Any target: the proxy connects to none, and resolves no name for this one.
    const target = { host: "localhost", port: 1 };
    const asking = { session: null, project: null };
    const { digest } = await askProxy(socket, target, asking);
    return digest === null ? "the egress proxy has no policy" : null;
  } catch {
    return "the egress proxy does not answer";
  }
}
