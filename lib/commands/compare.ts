// claudy compare: what sessions have changed in their copies, and what they used.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { execIn } from "../docker/exec.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { columns } from "../std/text.ts";
import { costText } from "../usage/budgets.ts";
import { readRows } from "../usage/records.ts";
import { type Sum, usageSums } from "../usage/report.ts";
import { listWorkers } from "../worker/workers.ts";
import { diffCopy } from "../workspace/diff.ts";
import { maxBytesIn, sizeOption } from "./copies.ts";
import { namedSession } from "./workers.ts";

interface Options {
  test?: unknown;
  maxSize?: unknown;
  json?: boolean;
}

/** How long a test may take in each session. */
const testMs = 30 * 60_000;

interface Compared {
  session: string;
  commits: number;
  files: number;
  insertions: number;
  deletions: number;
  /** The exit code of the test; null without one, or if the session does not run. */
  test: number | null;
  tokens: number;
  costUsd: number | null;
}

export function compareCommand(io: Io): CAC {
  const cli = command("claudy compare");
  cli.command(
    "<...names>",
    "Compare what sessions have changed in their copies, and what they used",
  )
    .option("--test <command>", "Run a shell command in each running session")
    .option(...sizeOption)
    .option("--json", "Print the comparison as JSON")
    .example("claudy compare shop-f1 shop-f2 --test make")
    .action(async (words: string[], options: Options) => {
      const { test, json } = options;
      const maxBytes = maxBytesIn(options);
      const instance = await openInstance(io.env, io.log);
      const sessions = words.map((word) => namedSession(io, instance, word));
      const sums = usageSums(readRows(instance.home), "session", "");
      const compared: Compared[] = [];
      // One after another: tests would slow each other down.
      for (const session of sessions) {
        const sum = sums.find(({ name }) => name === session.name);
        compared.push(
          await compare(io, instance, session, {
            test,
            sum,
            maxBytes,
          }),
        );
      }
      io.answer(compared, table(compared, test !== undefined, sums), json);
    });
  return cli;
}

async function compare(
  io: Io,
  instance: Instance,
  session: SessionRecord,
  { test, sum, maxBytes }: {
    test: unknown;
    sum: Sum | undefined;
    maxBytes: number | undefined;
  },
): Promise<Compared> {
  const exit = test === undefined
    ? null
    : await tested(instance, session, String(test));
  const { commits, files, insertions, deletions } = await diffCopy(
    instance,
    session,
    { changes: true, stat: true, maxBytes },
    io.log,
  );
  return {
    session: session.name,
    commits,
    files,
    insertions,
    deletions,
    test: exit,
    tokens: sum?.tokens ?? 0,
    costUsd: sum?.costUsd ?? null,
  };
}

/** Null if the session does not run. */
async function tested(
  instance: Instance,
  { name }: SessionRecord,
  test: string,
): Promise<number | null> {
  const worker = (await listWorkers(instance)).find(({ session, state }) =>
    session === name && state === "running"
  );
  if (!worker) return null;
  // Its output may be of any length; only the exit code is used.
  const shell = ["sh", "-c", `exec >/dev/null 2>&1; ${test}`];
  const ran = await execIn(instance.docker, worker.id, shell, {
    timeoutMs: testMs,
  });
  return ran.exitCode;
}

function table(compared: Compared[], tested: boolean, sums: Sum[]): string {
  const used = compared.some(({ tokens }) => tokens > 0);
  return columns([
    [
      ...["SESSION", "COMMITS", "FILES", "LINES"],
      ...(tested ? ["TEST"] : []),
      ...(used ? ["TOKENS", "COST"] : []),
    ],
    ...compared.map((one) => [
      one.session,
      String(one.commits),
      String(one.files),
      `+${one.insertions} -${one.deletions}`,
      ...(tested ? [testText(one.test)] : []),
      ...(used
        ? [
          String(one.tokens),
          costText(
            one.costUsd,
            sums.find(({ name }) => name === one.session)?.unpricedTokens ?? 0,
          ),
        ]
        : []),
    ]),
  ]);
}

function testText(code: number | null): string {
  if (code === null) return "does not run";
  return code === 0 ? "passed" : `failed (${code})`;
}
