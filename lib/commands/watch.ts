// claudy watch: prints state changes of sessions.

import { spawn } from "node:child_process";
import process from "node:process";
import type { CAC } from "cac";
import { messageOf } from "../std/errors.ts";
import { viewInstance } from "../instance/open.ts";
import {
  followSessions,
  type SessionChange,
  sessionChanges,
  type WatchedWorker,
} from "../session/watch.ts";
import { printable } from "../std/text.ts";
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
      await followSessions(
        instance,
        { stop: stop.signal, log: io.log },
        (now) => {
          for (const change of sessionChanges(before, now)) {
            const at = new Date().toISOString();
            io.answerLine({ at, ...change }, `${at} ${describe(change)}`, json);
            const begins = before !== undefined && change.to === "waiting" &&
              change.from !== "waiting";
            if (begins && notifyWith !== "") notify(io, notifyWith, change);
          }
          before = now;
        },
      );
    });
  return cli;
}

function describe({ session, to, waitingFor, project }: SessionChange): string {
  const why = waitingFor === null ? "" : `: ${waitingFor}`;
  return printable(`${session} ${to}${why} (${project})`);
}

/** Text from a worker is passed to the command only in environment variables. */
function notify(io: Io, command: string, change: SessionChange): void {
  const { session, project, waitingFor } = change;
  const report = (why: string) =>
    io.log(`Cannot run HAL9000_NOTIFY_COMMAND: ${why}`);
  try {
    const child = spawn("sh", ["-c", command], {
      env: {
        ...io.env,
        HAL9000_SESSION: session,
        HAL9000_PROJECT: printable(project),
        HAL9000_WAITING_FOR: waitingFor ?? "",
      },
      stdio: ["ignore", "ignore", "inherit"],
    });
    child.on("error", (error) => report(error.message));
    child.on("exit", (code) => {
      if (code) report(`exit code ${code}`);
    });
  } catch (error) {
    report(messageOf(error));
  }
}
