// claudy attach and claudy logs: shows a session, or what it has said.

import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { lastLines, type LogOptions, printLog } from "../cli/logs.ts";
import { refuseWithoutTerminal, wholeNumber } from "../cli/options.ts";
import { setTimeout as sleep } from "node:timers/promises";
import type { Instance } from "../instance/instance.ts";
import { runDocker } from "../docker/docker-cli.ts";
import { execAtTerminal } from "../docker/terminal.ts";
import { openInstance, viewInstance } from "../instance/open.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { hasTerminal } from "../session/tmux.ts";
import {
  messageText,
  type Position,
  readMessages,
} from "../session/transcript.ts";
import { Failure } from "../std/errors.ts";
import { type HostPath, lookAt } from "../std/hostpath.ts";
import { projectIsMissing } from "../session/open.ts";
import { requireSameProject } from "../session/worker.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";
import { openSession } from "./open-project.ts";
import { namedSession } from "./sessions.ts";
import { showSession } from "./show.ts";

interface AttachOptions {
  shell?: boolean;
  yes?: boolean;
}

export function attachCommand(io: Io): CAC {
  const cli = command("claudy attach");
  cli.command(
    "[name]",
    "Attach to a session; resume it if it does not run (default: the one here)",
  )
    .option("-s, --shell", "Open a shell in its worker")
    .option("--yes", "Start the daemon without asking")
    .action((word: unknown, options: AttachOptions) =>
      attach(io, word, options)
    );
  return cli;
}

async function attach(
  io: Io,
  word: unknown,
  options: AttachOptions,
): Promise<number | undefined> {
  const instance = await openInstance(io.env, io.log);
  const session = namedSession(io, instance, word);
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
    found = lookAt(session.project, instance.host);
  } catch {
    throw projectIsMissing(session);
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
      const session = namedSession(io, instance, word);
      const worker = await runningWorker(instance, session);
      if (!worker) {
        throw new Failure("notFound", `"${session.name}" is not running`, {
          hint: `Resume it: claudy attach ${session.name}`,
        });
      }
      requireProject(instance, session, worker);
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

async function runningWorker(
  instance: Instance,
  { name }: SessionRecord,
): Promise<WorkerState | undefined> {
  return (await listWorkers(instance)).find(({ session, state }) =>
    session === name && state === "running"
  );
}

export function logsCommand(io: Io): CAC {
  const cli = command("claudy logs");
  cli.command("[name]", "Print the conversation of a session")
    .option("--worker", "Print the log of its worker instead")
    .option("-f, --follow", "Follow new messages")
    .option("--tail <n>", "Number of lines to show from the end (default: all)")
    .option("--json", "Print the messages as JSON lines")
    .action((word: unknown, options: LogsOptions) =>
      printLogs(io, word, options)
    );
  return cli;
}

interface LogsOptions extends LogOptions {
  worker?: boolean;
  json?: boolean;
}

async function printLogs(
  io: Io,
  word: unknown,
  options: LogsOptions,
): Promise<number | undefined> {
  const instance = await viewInstance(io.env, io.log);
  const { name } = namedSession(io, instance, word);
  if (options.worker) return await printWorkerLog(io, instance, name, options);
  await printConversation(io, instance, name, options);
  return undefined;
}

/** How often a followed conversation is read. */
const followMs = 500;

async function printConversation(
  io: Io,
  instance: Instance,
  session: string,
  { tail, follow, json }: LogsOptions,
): Promise<void> {
  const count = wholeNumber("--tail", tail);
  let read = readMessages(instance, session);
  if (!read && !follow) {
    throw new Failure("notFound", `"${session}" has no conversation yet`, {
      hint: `For the log of its worker: claudy logs --worker ${session}`,
    });
  }
  let position: Position | undefined;
  for (let first = true;; first = false) {
    const messages = read?.messages ?? [];
    if (json) {
      const last = first && count !== undefined
        ? messages.slice(-count)
        : messages;
      for (const message of last) io.answerLine(message, "", true);
    } else {
      const text = messages.map((message) => `${messageText(message)}\n`)
        .join("\n");
      const shown = first ? lastLines(text, { tail }) : text.trimEnd();
      io.answer(null, first || shown === "" ? shown : `\n${shown}`);
    }
    if (!follow) return;
    position = read?.position ?? position;
    await sleep(followMs);
    read = readMessages(instance, session, position);
  }
}

async function printWorkerLog(
  io: Io,
  instance: Instance,
  session: string,
  options: LogOptions,
): Promise<number | undefined> {
  const worker = (await listWorkers(instance))
    .find((worker) => worker.session === session);
  if (worker) return await printLog(worker.id, options);
  const { home, names } = instance;
  const log = newest([home.log(session), home.log(names.session(session))]);
  const text = await readFile(log, "utf8").catch(() => {
    throw new Failure("notFound", `The worker of "${session}" has no log`, {
      hint: `To see its conversation: claudy logs ${session}`,
    });
  });
  io.answer(null, lastLines(text, options));
  return undefined;
}

/** The most recently written file; the first if none exists. */
function newest(files: [string, ...string[]]): string {
  const times = files.map((file) =>
    statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0
  );
  return files[times.indexOf(Math.max(...times))] ?? files[0];
}
