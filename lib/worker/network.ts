// The network of a worker: shared with the other workers, or isolated, with nothing but
// the services that nsenter opens on its localhost.

import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import type { Docker } from "../docker/docker.ts";
import type { HomePaths } from "../instance/paths.ts";

/** Docker's network mode of an isolated worker: a namespace with only a loopback. */
export const isolatedMode = "none";

/** The ports of the services that isolated workers reach on their localhost. */
export function openedPorts(
  { services }: Pick<HomePaths, "services">,
): number[] {
  return namesIn(services).flatMap((name) => {
    const port = Number(/^(\d{1,5})\.sock$/.exec(name)?.[1]);
    return port >= 1 && port <= 65535 ? [port] : [];
  }).sort((a, b) => a - b);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return []; // before the first start of this version
  }
}

/** The variable by which nsenter recognizes the worker's processes. */
const markName = "HAL9000_WORKER_MARK";

/** KEY=VALUE, with a random value. */
export function newMark(): string {
  return `${markName}=${randomBytes(16).toString("hex")}`;
}

/** Undefined for a worker of an earlier version, or a shared one that was spawned cold. */
export function markOf(
  { Env }: Docker.ContainerInspectInfo["Config"],
): string | undefined {
  return Env.find((variable) => variable.startsWith(`${markName}=`));
}
