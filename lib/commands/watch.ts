// claudy watch: what sessions do, as it happens.

import { spawn } from "node:child_process";
import process from "node:process";
import type { CAC } from "cac";
import { messageOf } from "../std/errors.ts";
import { viewInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import {
  followSessions,
  type SessionChange,
  sessionChanges,
  type WatchedWorker,
} from "../session/watch.ts";
import { printable } from "../std/text.ts";
import { answerLine } from "../cli/output.ts";

const { env } = process;

/** Adds claudy watch. */
export function addWatch(cli: CAC): void {
  cli.command("watch", "Print what sessions do, as they begin to work or wait")
    .option("--json", "Print a JSON object a line")
    .example(
      "HAL9000_NOTIFY_COMMAND='notify-send \"$HAL9000_SESSION\"' claudy watch",
    )
    .action(async ({ json }: { json?: boolean }) => {
      const instance = await viewInstance(env, logToStderr);
      const command = instance.settings.HAL9000_NOTIFY_COMMAND;
      const stop = new AbortController();
      process.on("SIGTERM", () => stop.abort());
      let before: WatchedWorker[] | undefined;
      await followSessions(
        instance,
        { stop: stop.signal, log: logToStderr },
        (now) => {
          for (const change of sessionChanges(before, now)) {
            const at = new Date().toISOString();
            answerLine({ at, ...change }, `${at} ${inWords(change)}`, json);
            const begins = before !== undefined && change.to === "waiting" &&
              change.from !== "waiting";
            if (begins && command !== "") notify(command, change);
          }
          before = now;
        },
      );
    });
}

function inWords({ session, to, waitingFor, project }: SessionChange): string {
  const why = waitingFor === null ? "" : `: ${waitingFor}`;
  return printable(`${session} ${to}${why} (${project})`);
}

/** What a worker says of itself reaches the command as variables alone. */
function notify(command: string, change: SessionChange): void {
  const { session, project, waitingFor } = change;
  const tell = (why: string) =>
    logToStderr(`Cannot run HAL9000_NOTIFY_COMMAND: ${why}`);
  try {
    const child = spawn("sh", ["-c", command], {
      env: {
        ...env,
        HAL9000_SESSION: session,
        HAL9000_PROJECT: printable(project),
        HAL9000_WAITING_FOR: waitingFor ?? "",
      },
      stdio: ["ignore", "ignore", "inherit"],
    });
    child.on("error", (error) => tell(error.message));
    child.on("exit", (code) => {
      if (code) tell(`it ended with code ${code}`);
    });
  } catch (error) {
    tell(messageOf(error));
  }
}
