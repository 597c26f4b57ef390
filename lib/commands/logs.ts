// claudy logs: prints what was said in a session, or the log of its worker.

import { statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { lastLines, type LogOptions, printLog } from "../cli/logs.ts";
import { wholeNumber } from "../cli/options.ts";
import type { Instance } from "../instance/instance.ts";
import { viewInstance } from "../instance/open.ts";
import {
  messageText,
  type Position,
  readMessages,
} from "../session/transcript.ts";
import { Failure } from "../std/errors.ts";
import { listWorkers } from "../worker/workers.ts";
import { hasKeptLog, namedSessionOrWorker, printWorkerLog } from "./workers.ts";

export function logsCommand(io: Io): CAC {
  const cli = command("claudy logs");
  cli.command(
    "[name]",
    "Print a conversation, or the log of a worker without one (default: the session here)",
  )
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
  const name = await sessionOrLog(io, instance, word);
  if ("log" in name) {
    return await printWorkerLog(io, instance, name.log, options);
  }
  const { session } = name;
  if (options.worker) {
    return await printSessionLog(io, instance, session, options);
  }
  await printConversation(io, instance, session, options);
  return undefined;
}

/** The name of a session, or of a worker without one, running or removed. */
async function sessionOrLog(
  io: Io,
  instance: Instance,
  word: unknown,
): Promise<{ session: string } | { log: string }> {
  try {
    const { session, worker } = await namedSessionOrWorker(io, instance, word);
    return session ? { session: session.name } : { log: worker.name };
  } catch (error) {
    if (!hasKeptLog(instance, String(word))) throw error;
    return { log: String(word) };
  }
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

async function printSessionLog(
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
