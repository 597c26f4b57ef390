// Finds the namespaces of containers and enters them.

import { readFileSync } from "node:fs";
import process from "node:process";
import { closeDescriptor, enterNamespace, openPath } from "./calls.ts";

/** A container, by its first process. */
export interface ContainerProcess {
  /** Its PID on the engine's machine. */
  pid: number;
  /** A variable (KEY=VALUE) that no process outside of the container has. */
  mark: string;
}

/**
 * Calls `act` with the path of a container's first process in /proc. A PID can be reused at
 * any time, but never leads to another process here: the path is that of an open directory
 * of /proc, which stays that of one process and is empty once it has ended. So what is
 * opened below it belongs to the process whose variables were compared. The mark is random,
 * and the engine gives it to this container alone: no other process can show it.
 */
export function inProcess<T>(
  { pid, mark }: ContainerProcess,
  act: (path: string) => T,
): T {
  const directory = openPath(`/proc/${pid}`, "directory");
  try {
    const path = `/proc/self/fd/${directory}`;
    const variables = readFileSync(`${path}/environ`, "utf8").split("\0");
    if (!variables.includes(mark)) throw new Error("the worker has ended");
    return act(path);
  } finally {
    closeDescriptor(directory);
  }
}

const files = { mount: "mnt", network: "net" } as const;

/** A descriptor of a container's namespace. */
export function openNamespace(
  process: ContainerProcess,
  kind: keyof typeof files,
): number {
  const open = (path: string) =>
    openPath(`${path}/ns/${files[kind]}`, "namespace");
  return inProcess(process, open);
}

/**
 * Runs `act` in another namespace and switches back to `own`, or ends the process. `act`
 * must be synchronous: everything else of this thread would run there, too.
 */
export function within<T>(
  kind: keyof typeof files,
  namespace: number,
  own: number,
  act: () => T,
): T {
  enterNamespace(namespace, kind);
  try {
    return act();
  } finally {
    try {
      enterNamespace(own, kind);
    } catch {
      // In the wrong namespace, nothing may run any more.
      process.exit(1);
    }
  }
}
