// The permission that a session asks for, as its screen shows it, and the answer to it. A
// worker controls its screen: what is read here is not trusted, and an answer is one digit
// that is typed into the worker, so that a late one does nothing but stand in its prompt.

import type { Docker } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import { screenCommand, screenOf, tmux } from "./tmux.ts";

/** What the CLI's status file holds while it asks for a permission. */
export const permissionPrompt = "permission prompt";

export interface PermissionRequest {
  /** The request's part of the screen, unchanged. */
  dialog: string;
  /** The same for a person: without rulers and choices. */
  lines: string[];
  /** The keys that choose "Yes" for this time only, and "No". */
  yes: string;
  no: string;
}

const choice = /^\s*(?:❯\s+)?(\d)\. (.*\S)/;

/** From the left edge: what the request shows itself is indented. */
const ruler = /^─{20,}\s*$/;

/**
 * The request at the end of a screen. Undefined if there is none, or if its beginning is
 * not on the screen.
 */
export function requestOn(screen: string): PermissionRequest | undefined {
  const lines = screen.split("\n");
  const choices = lines.map((line) => choice.exec(line));
  const no = choices.findLastIndex((found) => /^No\b/.test(found?.[2] ?? ""));
  const before = choices.slice(0, Math.max(no, 0));
  const yes = before.findLastIndex((found) => found?.[2] === "Yes");
  const start = lines.slice(0, Math.max(yes, 0))
    .findLastIndex((line) => ruler.test(line));
  const [yesKey, noKey] = [choices[yes]?.[1], choices[no]?.[1]];
  if (start < 0 || yesKey === undefined || noKey === undefined) {
    return undefined;
  }
  return {
    dialog: lines.slice(start, no + 1).join("\n"),
    lines: lines.slice(start + 1, yes)
      .filter((line) => /[^\s─╌]/.test(line)),
    yes: yesKey,
    no: noKey,
  };
}

/** The request that the session shows now. */
export async function readRequest(
  docker: Docker,
  id: string,
): Promise<PermissionRequest | undefined> {
  return requestOn(await screenOf(docker, id));
}

/**
 * Types `$2` if the screen still shows `$1`. One process looks and types, because the
 * request may be answered elsewhere meanwhile. A pane that is scrolled back gets no keys.
 */
const answerScript = `screen=$(${screenCommand.join(" ")}) || exit
case $screen in *"$1"*) ;; *) exit 9 ;; esac
${
  tmux.join(" ")
} if -F -t =claude: '#{pane_in_mode}' 'send-keys -t =claude: -X cancel' ';' \\
  send-keys -t =claude: -l "$2"`;

const answerTimeoutMs = 3000;

/** Whether the answer was given: false if the screen no longer shows this request. */
export async function answerRequest(
  docker: Docker,
  id: string,
  { dialog, yes, no }: PermissionRequest,
  isAllowed: boolean,
): Promise<boolean> {
  const key = isAllowed ? yes : no;
  const command = ["sh", "-c", answerScript, "sh", dialog, key];
  const { exitCode } = await execIn(docker, id, command, {
    timeoutMs: answerTimeoutMs,
  });
  return exitCode === 0;
}
