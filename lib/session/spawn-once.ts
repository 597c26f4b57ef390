// Starts the worker of a project's default session, without starting Claude in it.

import { join } from "node:path";
import type { InheritRequest } from "../home/host-config.ts";
import { inheritOnce } from "../home/inherit.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { configuredServers, offerServers } from "../mcp/offer.ts";
import { type Project, sessionName } from "../project/project.ts";
import type { HostPath } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import { forgetActivity } from "./activity.ts";
import { requireIsolated } from "./worker.ts";
import { retireWorker } from "../worker/ending.ts";
import type { SpawnRequest } from "../worker/request.ts";
import { type SpawnedWorker, spawnWorker } from "../worker/spawn.ts";
import { listWorkers } from "../worker/workers.ts";

/**
 * Returns the project's running worker if there is one, else spawns one. Removes an
 * exited worker of the session first, such as one left by an engine restart.
 */
export async function spawnOnce(
  instance: Instance,
  { project, image, repository, inherit }:
    & Pick<SpawnRequest, "image" | "repository">
    & { project: Project & HostPath; inherit: InheritRequest | undefined },
  log: Log,
): Promise<SpawnedWorker> {
  const name = sessionName(project.path);
  const workers = (await listWorkers(instance))
    .filter((worker) => worker.project === project.path);
  const running = workers.find(({ state }) => state === "running");
  if (running) {
    requireIsolated(instance, running);
    const { id, name, image } = running;
    return { id, name, project: project.path, image };
  }
  const ended = workers.find((worker) => worker.name === name);
  if (ended) await retireWorker(instance, ended, log);
  const claudeHome = join(instance.home.home, sessionHome(name));
  inheritOnce(instance, { session: name, project, request: inherit }, log);
  const worker = await spawnWorker(instance, {
    directory: project.path,
    cwd: "/",
    resolved: project,
    name,
    session: name,
    image,
    repository,
  }, log);
  forgetActivity(claudeHome);
  const servers = configuredServers(instance, log);
  offerServers(instance, claudeHome, project, servers);
  return worker;
}
