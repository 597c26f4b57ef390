// Types a prompt into a running session.

import { Buffer } from "node:buffer";
import { join } from "node:path";
import { execIn } from "../docker/exec.ts";
import { sessionHome } from "../home/worker-home.ts";
import type { Instance } from "../instance/instance.ts";
import { sessionIsPaused } from "./worker.ts";
import { Failure } from "../std/errors.ts";
import { listWorkers } from "../worker/workers.ts";
import { readCliState } from "./activity.ts";
import { tmux } from "./tmux.ts";

/** The kernel's limit for one argument of a program is 128 KiB. */
const maxBytes = 100 * 1024;

/** Throws a `usage` Failure for a prompt that is too long to pass to Claude. */
export function checkPrompt(text: string): void {
  if (Buffer.byteLength(text) <= maxBytes) return;
  throw new Failure("usage", "The prompt is longer than 100 KiB", {
    hint: "Write it to a file in the project, and name the file in the prompt.",
  });
}

/** Without the sequences of keys: one of them ends a paste, and others would act. */
function withoutKeys(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(/(?![\n\t])\p{Cc}/gu, "");
}

const command = tmux.join(" ");

/** As a paste, so that its line breaks do not end the prompt. */
const paste = `printf %s "$1" | ${command} load-buffer -b hal9000 - &&
${command} paste-buffer -p -d -b hal9000 -t =claude: && sleep 0.5`;

const enter = `${command} send-keys -t =claude: Enter`;

const script = `${paste} && ${enter}`;

/** How often the careful script looks for the text, every 0.1 s: a busy CLI draws it late. */
const maxLooks = 50;

/**
 * For a prompt that no person watches: no Enter if something else was typed there, or if a
 * dialog has appeared meanwhile, whose choice it would accept. The CLI shows a no-break
 * space before what is typed.
 */
export const carefulScript = `${paste} || exit
looks=0
while [ $looks -lt ${maxLooks} ]; do
  case $(${command} capture-pane -p -J -t =claude:) in
    *"❯ $1"* | *"❯\u00a0$1"*) exec ${enter} ;;
    *"$1"*) break ;;
  esac
  looks=$((looks + 1))
  sleep 0.1
done
${command} send-keys -t =claude: -N "\${#1}" BSpace
echo "something else is typed there, or asked"
exit 1`;

export async function sendText(
  instance: Instance,
  session: string,
  text: string,
  { onlyIntoEmptyPrompt = false } = {},
): Promise<void> {
  checkPrompt(text);
  const worker = (await listWorkers(instance)).find((worker) =>
    worker.session === session &&
    (worker.state === "running" || worker.state === "paused")
  );
  if (worker?.state === "paused") throw sessionIsPaused(session, worker.name);
  const state = worker &&
    readCliState(join(instance.home.home, sessionHome(session)));
  if (!state) {
    throw new Failure("notFound", `Session "${session}" is not running`, {
      hint: `Resume it: claudy attach ${session}`,
    });
  }
  // Enter would accept what the session asks for.
  if (state.activity === "waiting") {
    const what = state.waitingFor ? `: ${state.waitingFor}` : "";
    throw new Failure("busy", `Session "${session}" waits for you${what}`, {
      hint: `Answer it: claudy attach ${session}`,
    });
  }
  const { exitCode, output } = await execIn(instance.docker, worker.id, [
    ...["sh", "-c", onlyIntoEmptyPrompt ? carefulScript : script, "sh"],
    withoutKeys(text).trimEnd(),
  ]);
  if (exitCode === 0) return;
  throw new Failure("failed", `Cannot send to "${session}": ${output.trim()}`, {
    hint: `Type it there: claudy attach ${session}`,
  });
}
