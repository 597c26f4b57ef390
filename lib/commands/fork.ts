// claudy fork: opens sessions that begin where another one is.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { listOf, wholeNumber } from "../cli/options.ts";
import { inheritRequest } from "../home/host-config.ts";
import { openInstance } from "../instance/open.ts";
import { forkSession } from "../session/fork.ts";
import { Failure } from "../std/errors.ts";
import { offerDaemon } from "./daemon.ts";
import { type Opened, openSession } from "./open-project.ts";
import { namedSession } from "./workers.ts";

interface Options {
  n?: unknown;
  prompt?: unknown;
  trustProject?: boolean;
  yes?: boolean;
  json?: boolean;
}

const maxForks = 20;

export function forkCommand(io: Io): CAC {
  const cli = command("claudy fork");
  cli.command(
    "[name]",
    "Open sessions that begin where this one is, in copies of their own (default: the session here)",
  )
    .option("-n <count>", "How many (default: 1)")
    .option(
      "--prompt <text>",
      "What to ask them: one for all, or given once for each",
      { type: [] },
    )
    .option("--trust-project", "Approve the project's current configuration")
    .option("--yes", "Start the daemon without asking")
    .option("--json", "Print the sessions as JSON")
    .example("claudy fork shop -n 3 --prompt review")
    .action((word: unknown, options: Options) => fork(io, word, options));
  return cli;
}

async function fork(io: Io, word: unknown, options: Options): Promise<void> {
  const prompts = listOf(options.prompt);
  const count = wholeNumber("-n", options.n) ?? Math.max(prompts.length, 1);
  if (count < 1 || count > maxForks) {
    throw new Failure(
      "usage",
      `-n must be from 1 to ${maxForks}, got ${count}`,
    );
  }
  if (prompts.length > 1 && prompts.length !== count) {
    throw new Failure(
      "usage",
      `--prompt is given ${prompts.length} times for ${count} sessions`,
      { hint: "Give it once for all of them, or once for each." },
    );
  }
  const instance = await openInstance(io.env, io.log);
  const session = namedSession(io, instance, word);
  await offerDaemon(io, instance, options.yes);
  const inherit = inheritRequest(instance, io.env, {});
  const { sessions, frozenMs, shared } = await forkSession(
    instance,
    session,
    { count, inherit },
    io.log,
  );
  if (frozenMs > 0) {
    io.log(
      `${session.name} stood still for ${frozenMs} ms; its files ` +
        (shared ? "share blocks with the copies" : "were copied"),
    );
  }
  const opened: Opened[] = [];
  await inTurn(io, sessions, async (name, at) => {
    await openSession(io, instance, {
      directory: session.project,
      options: {
        name,
        detach: true,
        allowAnyPath: true,
        ...(options.trustProject ? { trustProject: true } : {}),
      },
      prompt: prompts[prompts.length > 1 ? at : 0],
      answer: (one) => void opened.push(one),
    });
  });
  const answer = { from: session.name, frozenMs, shared, sessions: opened };
  io.answer(answer, sessions.join("\n"), options.json);
}

/** Opens sessions that are made; if one fails, tells which are not open. */
export async function inTurn(
  { log }: Pick<Io, "log">,
  sessions: string[],
  open: (name: string, at: number) => Promise<void>,
): Promise<void> {
  for (const [at, name] of sessions.entries()) {
    await open(name, at).catch((error) => {
      const left = sessions.slice(at).join(", ");
      log(`Made, but not started: ${left}. To open it: claudy attach ${name}`);
      throw error;
    });
  }
}
