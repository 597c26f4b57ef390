// claudy stop: stops sessions and workers.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import {
  readSessions,
  type SessionRecord,
} from "../instance/session-record.ts";
import { stopSession } from "../session/session.ts";
import { Failure, onEach } from "../std/errors.ts";
import { stopWorker } from "../worker/ending.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import { namedSession, namedSessionOrWorker } from "./workers.ts";

interface Options {
  all?: boolean;
  yes?: boolean;
  json?: boolean;
}

export function stopCommand(io: Io): CAC {
  const cli = command("claudy stop");
  cli.command(
    "[...names]",
    "Stop sessions, keep their conversations; or workers (default: the session here)",
  )
    .option("--all", "Stop all sessions and other workers, after asking")
    .option("--yes", "Do not ask")
    .option("--json", "Print the session as JSON, or a list of several")
    .action((words: string[], options: Options) => stop(io, words, options));
  return cli;
}

/** What a word stands for, and how it is stopped: returns whether it was running. */
interface Target {
  name: string;
  stop: () => Promise<boolean>;
}

async function stop(
  io: Io,
  words: string[],
  { all, yes, json }: Options,
): Promise<void> {
  const instance = await openInstance(io.env, io.log);
  if (all && words.length > 0) {
    throw new Failure("usage", "--all takes no names", {
      hint: "Pass either --all or names: claudy stop --all",
    });
  }
  const targets = all
    ? await allTargets(io, instance)
    : words.length === 0
    ? [sessionTarget(io, instance, namedSession(io, instance, undefined))]
    : await namedTargets(io, instance, words);
  const names = targets.map(({ name }) => name);
  if (all && names.length > 0) {
    await io.confirm(`Stop ${names.join(", ")}?`, yes);
  }
  const ran = new Map<string, boolean>();
  const stopOne = async ({ name, stop }: Target) =>
    void ran.set(name, await stop());
  await onEach(targets, stopOne, (done) => {
    const stopped = done.map((session) => ({
      session,
      stopped: ran.get(session) ?? false,
    }));
    const lines = stopped.map(({ session, stopped }) =>
      stopped ? session : `${session} was not running`
    );
    const single = !all && words.length < 2;
    if (single && stopped.length === 0) return;
    io.answer(single ? stopped[0] : stopped, lines.join("\n"), json);
  });
}

function sessionTarget(
  io: Io,
  instance: Instance,
  { name }: SessionRecord,
): Target {
  return { name, stop: () => stopSession(instance, name, io.log) };
}

function workerTarget(
  io: Io,
  instance: Instance,
  worker: WorkerState,
): Target {
  return {
    name: worker.name,
    stop: async () => {
      await stopWorker(instance, worker, io.log);
      return true;
    },
  };
}

/** All sessions that have a worker, and the workers without a session. */
async function allTargets(io: Io, instance: Instance): Promise<Target[]> {
  const workers = await listWorkers(instance);
  const sessions = readSessions(instance);
  const named = (name: string | null) =>
    sessions.some((session) => session.name === name);
  return [
    ...sessions.filter(({ name }) =>
      workers.some(({ session }) => session === name)
    ).map((session) => sessionTarget(io, instance, session)),
    ...workers.filter(({ session }) => !named(session))
      .map((worker) => workerTarget(io, instance, worker)),
  ];
}

/** What is named, each once. What is missing fails when it is stopped, after the others. */
async function namedTargets(
  io: Io,
  instance: Instance,
  words: string[],
): Promise<Target[]> {
  const targets = new Map<string, Target>();
  for (const word of words) {
    const target = await namedSessionOrWorker(io, instance, word).then(
      ({ session, worker }) =>
        session
          ? sessionTarget(io, instance, session)
          : workerTarget(io, instance, worker),
      (error) => ({ name: word, stop: () => Promise.reject(error) }),
    );
    targets.set(target.name, target);
  }
  return [...targets.values()];
}
