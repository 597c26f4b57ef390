// Waits until isolated workers reach the parent's services again.

import { askProxy } from "../egress/ask.ts";
import type { Instance } from "../instance/instance.ts";
import { openSocket } from "../instance/parent-socket.ts";
import { readParentState } from "../instance/parent-state.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { waitFor } from "../std/wait.ts";
import type { WorkerState } from "../worker/workers.ts";

/** ChromaDB takes most of it. */
const defaultTimeoutMs = 15_000;

/** Call after the start of a parent. Only warns if a service does not answer in time. */
export async function waitForServices(
  instance: Instance,
  workers: WorkerState[],
  log: Log,
  timeoutMs = defaultTimeoutMs,
): Promise<void> {
  const isOne = ({ state, network }: WorkerState) =>
    state === "running" && network === "isolated";
  if (!workers.some(isOne)) return;
  let fault: string | null = null;
  const answer = async () => (fault = await servicesFault(instance)) === null;
  try {
    await waitFor(answer, { for: "services", timeoutMs, everyMs: 50 });
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    log(`warning: Isolated workers do not reach all services yet: ${fault}`);
  }
}

/** Null if they answer. */
async function servicesFault(instance: Instance): Promise<string | null> {
  const state = readParentState(instance);
  if (state?.isolationFault === undefined) return "they are not open in them";
  if (state.isolationFault !== null) return state.isolationFault;
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
