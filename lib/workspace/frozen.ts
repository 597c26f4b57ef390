// Stops a worker for the moment in which its files are copied. If the command is killed, the
// next command that makes a copy, or the parent within a minute, lets the worker go on.

import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import { inspectContainer } from "../docker/docker.ts";
import { statusOf } from "../docker/docker-errors.ts";
import type { Instance } from "../instance/instance.ts";
import { inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import { isStale, keepFresh } from "../std/fresh.ts";
import { writeNew } from "../std/owned.ts";
import { interceptSignals } from "../std/signals.ts";
import { waitFor } from "../std/wait.ts";

const markName = /^\.frozen-([0-9a-f]{64})$/;

/** Longer than it takes to see that a command was killed. */
const waitMs = 60_000;

type Home = Pick<Instance, "docker" | "home" | "owner">;

/**
 * Pauses a container while `act` runs, after other commands that do so; returns for how long,
 * in milliseconds. Throws a Failure if the container went on meanwhile.
 */
export async function whileFrozen(
  instance: Home,
  id: string,
  act: () => Promise<void>,
): Promise<number> {
  const { docker, home, owner } = instance;
  // It is the lock, too: a command removes only its own, or that of a killed one.
  const mark = join(home.workspaces, `.frozen-${id}`);
  const text = randomUUID();
  await waitFor(async () => {
    await thawAbandoned(instance);
    return writeNew(mark, text, owner);
  }, {
    for: "another fork of the session",
    timeoutMs: waitMs,
    everyMs: 100,
    isProgressing: () => Promise.resolve(!isStale(mark)),
  });
  let signal: NodeJS.Signals | undefined;
  let interrupt = () => {};
  const interrupted = new Promise<void>((resolve) => interrupt = resolve);
  const restore = interceptSignals((name) => {
    signal = name;
    interrupt();
  });
  const stopTouching = keepFresh(mark);
  const container = docker.getContainer(id);
  const thaw = async () => {
    // Else the worker may be paused by another command now.
    if (!existsSync(mark) || readFileSync(mark, "utf8") !== text) {
      throw new Failure("busy", "The session went on before it was copied", {
        hint: "Try again.",
      });
    }
    await container.unpause();
    rmSync(mark, { force: true });
  };
  const since = performance.now();
  let frozenMs = 0;
  try {
    await container.pause().catch((error) => {
      // Without an answer, it may be paused.
      if (statusOf(error) !== undefined) rmSync(mark, { force: true });
      throw error;
    });
    try {
      await Promise.race([act(), interrupted]);
    } finally {
      await thaw();
    }
    frozenMs = Math.round(performance.now() - since);
  } finally {
    stopTouching();
    restore();
    if (signal) process.kill(process.pid, signal);
  }
  if (signal) throw new Failure("interrupted", `Interrupted by ${signal}`);
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
    if (!isStale(mark)) continue;
    const id = markName.exec(basename(mark))?.[1] ?? "";
    const container = await inspectContainer(docker, id);
    try {
      if (container?.State.Paused) await docker.getContainer(id).unpause();
    } catch {
      continue; // The next command tries it again.
    }
    rmSync(mark, { force: true });
  }
}
