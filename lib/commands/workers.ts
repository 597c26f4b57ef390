// Workers that a command names: all for coordinator, those without a session for claudy.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Io } from "../cli/io.ts";
import { lastLines, type LogOptions, printLog } from "../cli/logs.ts";
import { refuseWithoutTerminal } from "../cli/options.ts";
import { attachTerminal } from "../docker/terminal.ts";
import type { Instance } from "../instance/instance.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { findSession, NoSuchSession } from "../session/find.ts";
import { hasTerminal, showInWorker } from "../session/tmux.ts";
import { Failure } from "../std/errors.ts";
import { didYouMean } from "../std/nearest.ts";
import {
  findWorker,
  listWorkers,
  pickWorker,
  type WorkerState,
} from "../worker/workers.ts";

/** The session that is named, or that of the working directory. */
export function namedSession(
  io: Io,
  instance: Instance,
  word: unknown,
): SessionRecord {
  return findSession(
    instance,
    word === undefined ? "." : String(word),
    io.cwd(),
    io.log,
  );
}

/** A session, or a worker without one. */
export type Named =
  | { session: SessionRecord; worker?: undefined }
  | { worker: WorkerState; session?: undefined };

/** Throws the Failure of the search for a session if no worker has the name either. */
export async function namedSessionOrWorker(
  io: Io,
  instance: Instance,
  word: unknown,
): Promise<Named> {
  try {
    return { session: namedSession(io, instance, word) };
  } catch (error) {
    if (!(error instanceof Failure) || word === undefined) throw error;
    const name = String(word);
    const workers = await listWorkers(instance);
    const worker = pickWorker(workers, name);
    if (worker) return { worker };
    const isPath = name.includes("/") || name.startsWith(".");
    if (error.kind !== "notFound" || isPath) throw error;
    const near = didYouMean(name, workers.map((worker) => worker.name));
    const hint = error.hint?.startsWith("Did you mean")
      ? error.hint
      : `${near}${error.hint}`;
    throw new NoSuchSession(name, hint, "session or worker");
  }
}

/** A table with a column for the networks before the last one, unless all are shared. */
export function withNetworks(
  [headings = [], ...rows]: string[][],
  shown: { network: string }[],
): string[][] {
  if (shown.every(({ network }) => network === "shared")) {
    return [headings, ...rows];
  }
  return [
    headings.toSpliced(-1, 0, "NETWORK"),
    ...rows.map((cells, at) =>
      cells.toSpliced(-1, 0, shown[at]?.network ?? "")
    ),
  ];
}

/** Prints the log of a worker, also of one that was removed. */
export async function printWorkerLog(
  io: Io,
  instance: Instance,
  name: string,
  options: LogOptions,
): Promise<number | undefined> {
  const worker = pickWorker(await listWorkers(instance), name);
  if (worker) return await printLog(worker.id, options);
  if (!hasKeptLog(instance, name)) {
    // Throws, and suggests a similar name.
    await findWorker(instance, name);
  }
  const text = await readFile(instance.home.log(name), "utf8");
  io.answer(null, lastLines(text, options), false);
  return undefined;
}

export function hasKeptLog({ home }: Instance, name: string): boolean {
  return /^[\w.-]+$/.test(name) && existsSync(home.log(name));
}

/** Attaches to its first process, else to its session, else to a new shell. */
export async function attachToWorker(
  io: Io,
  { docker }: Instance,
  { id, name, state }: WorkerState,
  { shell = false }: { shell?: boolean | undefined },
): Promise<number> {
  if (state === "paused") {
    throw new Failure("busy", `Cannot attach: "${name}" is paused`, {
      hint: `Resume it: docker unpause ${name}`,
    });
  }
  if (state !== "running") {
    throw new Failure("notFound", `Cannot attach: "${name}" has ended`, {
      hint: `See why: claudy logs --worker ${name}`,
    });
  }
  refuseWithoutTerminal(
    io,
    `Run a command instead: claudy exec ${name} -- COMMAND`,
  );
  const { Config } = await docker.getContainer(id).inspect();
  if (Config.Tty && !shell) {
    return await attachTerminal(docker, id, { start: false });
  }
  const session = !shell && await hasTerminal(docker, id);
  return await showInWorker(docker, id, io.env, {
    what: session ? "session" : "shell",
  });
}
