// claudy watch: prints state changes of sessions.

import process from "node:process";
import type { CAC } from "cac";
import { $ } from "zx/core";
import { viewInstance } from "../instance/open.ts";
import {
  followSessions,
  type SessionChange,
  sessionChanges,
  type WatchedWorker,
} from "../session/watch.ts";
import { followOverlaps } from "../session/overlap-watch.ts";
import { printable } from "../std/text.ts";
import { overlapText } from "../workspace/overlap.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

export function watchCommand(io: Io): CAC {
  const cli = command("claudy watch");
  cli.command("", "Print state changes of sessions as they happen")
    .option("--json", "Print one JSON object per line")
    .example(
      "HAL9000_NOTIFY_COMMAND='notify-send \"$HAL9000_SESSION\"' claudy watch",
    )
    .action(async ({ json }: { json?: boolean }) => {
      const instance = await viewInstance(io.env, io.log);
      const notifyWith = instance.settings.HAL9000_NOTIFY_COMMAND;
      const stop = new AbortController();
      process.on("SIGTERM", () => stop.abort());
      let before: WatchedWorker[] | undefined;
      // One command at a time for each session: a worker decides how often it waits.
      const notifying = new Set<string>();
      const works = (name: string) =>
        before?.some(({ worker, said }) =>
          worker.session === name && said?.activity === "working"
        ) ?? false;
      const overlaps = followOverlaps(
        instance,
        { stop: stop.signal, log: io.log, works },
        (overlap, begins) => {
          const at = new Date().toISOString();
          const { sessions: [session, other], project, files, count } = overlap;
          const notice = overlapText(overlap);
          io.answerLine(
            { at, session, project, overlap: { session: other, files, count } },
            printable(`${at} ${notice} (${project})`),
            json,
          );
          if (begins) void notify(io, notifyWith, { session, project, notice });
        },
      );
      await followSessions(
        instance,
        {
          stop: stop.signal,
          log: io.log,
          noted: (notice) => {
            const text = printable(`${notice.at} ${notice.text}`);
            io.answerLine({ ...notice, notice: notice.text }, text, json);
            void notify(io, notifyWith, {
              session: notice.session ?? "",
              project: notice.project ?? "",
              notice: notice.text,
            });
          },
        },
        (now) => {
          for (const change of sessionChanges(before, now)) {
            const at = new Date().toISOString();
            io.answerLine({ at, ...change }, `${at} ${describe(change)}`, json);
            const begins = before !== undefined && change.to === "waiting" &&
              change.from !== "waiting";
            const { session } = change;
            if (!begins || notifying.has(session)) continue;
            notifying.add(session);
            void notify(io, notifyWith, change)
              .finally(() => notifying.delete(session));
          }
          before = now;
        },
      );
      await overlaps;
    });
  return cli;
}

function describe({ session, to, waitingFor, project }: SessionChange): string {
  const why = waitingFor === null ? "" : `: ${waitingFor}`;
  return printable(`${session} ${to}${why} (${project})`);
}

interface Event {
  /** "" if it is about several sessions. */
  session: string;
  project: string;
  waitingFor?: string | null;
  /** About a budget or limit. */
  notice?: string;
}

/** The command gets what comes from a worker only as variables. */
async function notify(
  io: Io,
  command: string,
  { session, project, waitingFor, notice }: Event,
): Promise<void> {
  if (command === "") return;
  const env = {
    ...io.env,
    HAL9000_SESSION: session,
    HAL9000_PROJECT: printable(project),
    HAL9000_WAITING_FOR: waitingFor ?? "",
    HAL9000_NOTICE: printable(notice ?? ""),
  };
  const { exitCode } = await $({
    env,
    nothrow: true,
    quiet: true,
    stdio: ["ignore", "ignore", "inherit"],
  })`exec sh -c ${command}`;
  if (exitCode) {
    io.log(`HAL9000_NOTIFY_COMMAND failed with exit code ${exitCode}`);
  }
}
