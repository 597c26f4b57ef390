// Commands at this terminal in the worker of a session: claudy attach, claudy exec.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { refuseWithoutTerminal } from "../cli/options.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { execAtTerminal } from "../docker/terminal.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { projectIsMissing } from "../session/opening.ts";
import { requestResume } from "../session/resume.ts";
import { hasTerminal } from "../session/tmux.ts";
import { requireSameProject, sessionIsPaused } from "../session/worker.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, lookAt } from "../std/hostpath.ts";
import { clockText } from "../usage/days.ts";
import { readStatus } from "../usage/status.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import { openSession } from "./open-project.ts";
import { attachToWorker, namedSessionOrWorker } from "./workers.ts";
import { showSession } from "./show.ts";
import { copyOf } from "../workspace/workspace.ts";

interface AttachOptions {
  shell?: boolean;
  yes?: boolean;
  whenReset?: boolean;
}

export function attachCommand(io: Io): CAC {
  const cli = command("claudy attach");
  cli.command(
    "[name]",
    "Attach to a session; resume it if it does not run (default: the one here)",
  )
    .option("-s, --shell", "Open a shell in its worker")
    .option("--yes", "Start the daemon without asking")
    .option(
      "--when-reset",
      "Continue all sessions that stopped at the account's limit, when it resets",
    )
    .action((word: unknown, options: AttachOptions) =>
      options.whenReset
        ? resumeWhenReset(io, word, options)
        : attach(io, word, options)
    );
  return cli;
}

/** Leaves a request for the parent, so that this terminal can be closed. */
async function resumeWhenReset(
  io: Io,
  word: unknown,
  { shell }: AttachOptions,
): Promise<void> {
  if (word !== undefined || shell) {
    throw new Failure("usage", "--when-reset is for all sessions", {
      hint: "Pass it alone: claudy resume --when-reset",
    });
  }
  const instance = await openInstance(io.env, io.log);
  const limited = Object.entries(readStatus(instance)?.limited ?? {});
  const now = Date.now();
  const waiting = limited.filter(([, { resetsAt }]) => resetsAt > now);
  if (waiting.length === 0) {
    io.log("No session waits for a limit to reset");
    return;
  }
  requestResume(instance);
  for (const [session, { resetsAt }] of waiting) {
    io.log(`${session} goes on after ${clockText(resetsAt, now)}`);
  }
}

async function attach(
  io: Io,
  word: unknown,
  options: AttachOptions,
): Promise<number | undefined> {
  const instance = await openInstance(io.env, io.log);
  const named = await namedSessionOrWorker(io, instance, word);
  if (named.worker) {
    return await attachToWorker(io, instance, named.worker, options);
  }
  const { session } = named;
  const worker = await runningWorker(instance, session);
  if (worker) requireProject(instance, session, worker);
  refuseWithoutTerminal(io, "Run it in a terminal.");
  const { shell } = options;
  const shown = worker &&
    (shell || await hasTerminal(instance.docker, worker.id));
  if (!shown) return await resume(io, instance, session, options);
  const what = shell ? "shell" : "session";
  return await showSession(io, instance, session, { worker, shown: { what } });
}

/** Throws if the worker does not have the project's present directory. */
function requireProject(
  instance: Instance,
  session: SessionRecord,
  worker: WorkerState,
): void {
  let found: HostPath | undefined;
  try {
    found = session.copy
      ? copyOf(instance, session.name)
      : lookAt(session.project, instance.host);
  } catch (error) {
    throw session.copy ? error : projectIsMissing(session);
  }
  // It may not be visible from here.
  if (found) requireSameProject(instance, worker, found);
}

/** Opens a session that is not running. */
async function resume(
  io: Io,
  instance: Instance,
  { name, project }: SessionRecord,
  options: AttachOptions,
): Promise<number | undefined> {
  return await openSession(io, instance, {
    directory: project,
    options: { ...options, name },
  });
}

export function execCommand(io: Io): CAC {
  const cli = command("claudy exec");
  cli.command(
    "[name] [...words]",
    "Run a command in the worker of a running session",
  )
    .usage("[name] -- command...")
    .example("claudy exec shop -- npm test")
    .action(async (
      word: unknown,
      others: string[],
      options: { "--"?: string[] },
    ) => {
      const words = options["--"] ?? [];
      if (others.length > 0) {
        throw new Failure("usage", "There is no command after --", {
          hint: `Put -- before it: claudy exec ${word} -- ${others.join(" ")}`,
        });
      }
      if (words.length === 0) {
        throw new Failure("usage", "There is no command", {
          hint: "Pass it after --: claudy exec shop -- npm test",
        });
      }
      const instance = await openInstance(io.env, io.log);
      const worker = await workerFor(io, instance, word);
      if (io.isInteractive && io.showsOutput) {
        return await execAtTerminal(instance.docker, worker.id, {
          command: words,
          variables: {},
          env: io.env,
        });
      }
      return await runDocker(["exec", "--interactive", worker.id, ...words], {
        filtered: true,
        endsOnInterrupt: true,
      });
    });
  return cli;
}

/** The running worker of a session, or the one that is named. */
async function workerFor(
  io: Io,
  instance: Instance,
  word: unknown,
): Promise<WorkerState> {
  const { session, worker } = await namedSessionOrWorker(io, instance, word);
  if (worker?.state === "running") return worker;
  const found = session && await runningWorker(instance, session);
  if (worker?.state === "paused") {
    throw sessionIsPaused(worker.name, worker.name);
  }
  if (!found) {
    const name = session?.name ?? worker?.name;
    throw new Failure("notFound", `"${name}" is not running`, {
      hint: session
        ? `Resume it: claudy attach ${name}`
        : `See why: claudy logs --worker ${name}`,
    });
  }
  requireProject(instance, session, found);
  return found;
}

async function runningWorker(
  instance: Instance,
  { name }: SessionRecord,
): Promise<WorkerState | undefined> {
  const worker = (await listWorkers(instance)).find(({ session, state }) =>
    session === name && (state === "running" || state === "paused")
  );
  if (worker?.state === "paused") throw sessionIsPaused(name, worker.name);
  return worker;
}
