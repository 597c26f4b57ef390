// Stops a worker for the moment in which its files are copied. If the command is killed, the
// next command that makes a copy, or the parent within a minute, lets the worker go on.

import { lstatSync, rmSync, utimesSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { inspectContainer } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { inDirectory } from "../std/directory.ts";
import { writeAtomic } from "../std/owned.ts";
import { interceptSignals } from "../std/signals.ts";

const markName = /^\.frozen-([0-9a-f]{64})$/;

/** How often a command shows that it still copies, and when it is taken for dead. */
const beatMs = 1000;
const deadMs = 10_000;

type Home = Pick<Instance, "docker" | "home" | "owner">;

/** Pauses a container while `act` runs; returns for how long, in milliseconds. */
export async function whileFrozen(
  { docker, home, owner }: Home,
  id: string,
  act: () => Promise<void>,
): Promise<number> {
  const mark = join(home.workspaces, `.frozen-${id}`);
  const container = docker.getContainer(id);
  let interrupted: NodeJS.Signals | undefined;
  // Acted upon when the worker goes on.
  const restore = interceptSignals((signal) => interrupted = signal);
  writeAtomic(mark, "", owner);
  const beat = setInterval(() => {
    const now = new Date();
    utimesSync(mark, now, now);
  }, beatMs);
  const since = performance.now();
  let frozenMs = 0;
  try {
    await container.pause();
    try {
      await act();
    } finally {
      await container.unpause();
      frozenMs = Math.round(performance.now() - since);
    }
  } finally {
    clearInterval(beat);
    rmSync(mark, { force: true });
    restore();
  }
  if (interrupted) process.kill(process.pid, interrupted);
  return frozenMs;
}

/** Lets workers go on whose command was killed. */
export async function thawAbandoned(
  { docker, home }: Pick<Instance, "docker" | "home">,
): Promise<void> {
  const marks = inDirectory(
    home.workspaces,
    (directory) =>
      [...directory.entries()].map(({ name }) => join(home.workspaces, name))
        .filter((path) => markName.test(basename(path))),
  ) ?? [];
  for (const mark of marks) {
    const stat = lstatSync(mark, { throwIfNoEntry: false });
    if (!stat || Date.now() - stat.mtimeMs < deadMs) continue;
    const id = markName.exec(basename(mark))?.[1] ?? "";
    const container = await inspectContainer(docker, id);
    if (container?.State.Paused) await docker.getContainer(id).unpause();
    rmSync(mark, { force: true });
  }
}
