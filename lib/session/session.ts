// Sessions: each is one conversation in a project, run by tmux in its current worker.
// The Claude home of a session outlives its workers.

import { removeScope } from "../egress/store.ts";
import { removeBudgets } from "../usage/budgets.ts";
import { release } from "../usage/paused.ts";
import { removeGrant } from "../relay/grant.ts";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { stopWorker } from "../worker/ending.ts";
import { Failure, messageOf } from "../std/errors.ts";
import { execIn, processNames } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { type InheritRequest, readHostConfig } from "../home/host-config.ts";
import { inherit, type Inherited } from "../home/inherit.ts";
import type { Log } from "../std/log.ts";
import { freePorts } from "../instance/port-range.ts";
import { forgetSnapshot } from "../project/guarding.ts";
import { resolveProject } from "../project/project.ts";
import { removeTree } from "../std/remove-tree.ts";
import {
  readSession,
  removeSessionRecord,
  type SessionRecord,
} from "../instance/session-record.ts";
import { tmux } from "./tmux.ts";
import { waitFor } from "../std/wait.ts";
import { sessionHome } from "../home/worker-home.ts";
import { removeCopy } from "../workspace/workspace.ts";
import { listWorkers } from "../worker/workers.ts";

/** Updates a stopped session with the host's current Claude configuration. */
export async function syncSession(
  instance: Instance,
  { name, project: path }: SessionRecord,
  request: InheritRequest,
  log: Log,
): Promise<Inherited & { left: string[] }> {
  const live = (await listWorkers(instance))
    .some(({ session, state }) => session === name && state !== "exited");
  if (live) {
    throw new Failure("busy", `Session "${name}" is running`, {
      hint: `Stop it first: claudy stop ${name}`,
    });
  }
  const project = await resolveProject(instance, {
    path,
    cwd: "/",
    as: "project",
    allowAny: true,
  });
  const config = readHostConfig(request, project.path, log);
  return { ...inherit(instance, name, project, config), left: config.left };
}

/** Time for the CLI to save its state and exit. */
const gracePeriodMs = 3000;

/**
 * Signals what runs in the terminals of the session. They stay open: without its terminal,
 * Claude takes 6 s to exit instead of 0.3 s.
 */
const hangUp = `${tmux.join(" ")} list-panes -a -F '#{pane_pid}' |
  while read -r pid; do kill -s HUP -- "-$pid"; done`;

async function quitClaude(
  { docker }: Pick<Instance, "docker">,
  id: string,
): Promise<void> {
  const limits = { timeoutMs: gracePeriodMs };
  await execIn(docker, id, ["sh", "-c", hangUp], limits);
  await waitFor(
    async () => !(await processNames(docker, id)).includes("claude"),
    { for: "Claude to end", timeoutMs: gracePeriodMs, everyMs: 50 },
  );
}

/** Quits the CLI, then stops the worker. Returns false if the session has no worker. */
export async function stopSession(
  instance: Instance,
  name: string,
  log: Log,
): Promise<boolean> {
  const worker = (await listWorkers(instance))
    .find(({ session }) => session === name);
  if (!worker) return false;
  if (worker.state === "running") {
    await quitClaude(instance, worker.id).catch((error) => {
      log(`Killing Claude with its worker: ${messageOf(error)}`);
    });
  }
  await stopWorker(instance, worker, log);
  return true;
}

/**
 * Stops a session, then removes its home, record and port range, unless `check` throws: until
 * it is stopped, Claude may go on working.
 */
export async function removeSession(
  instance: Instance,
  name: string,
  log: Log,
  check?: () => Promise<void>,
): Promise<void> {
  await stopSession(instance, name, log);
  await check?.();
  const portBase = readSession(instance, name, log)?.portBase;
  if (portBase !== undefined) freePorts(instance, name, portBase);
  await removeCopy(instance, name);
  await removeSessionHome(instance, name);
  forgetSnapshot(instance, name);
  removeSessionRecord(instance, name);
  removeScope(instance, { session: name });
  removeBudgets(instance, { session: name, project: null });
  release(instance, name);
}

/** Removes the Claude home of a session and the record of its inherited files. */
export async function removeSessionHome(
  { home }: Pick<Instance, "home">,
  name: string,
): Promise<void> {
  await removeTree(join(home.home, sessionHome(name)));
  removeGrant({ home }, sessionHome(name));
  rmSync(home.inherited(name), { force: true });
}
