// The first process of a worker: it compares what was mounted with what was
// judged on the host, before anything else runs there. The engine resolves a
// source again when it mounts it, following links that somebody may have put
// there since.

import { exitCode } from "../std/errors.ts";
import { printable } from "../std/text.ts";

/** A mount as it has to be. */
export interface GateCheck {
  target: string;
  /** As stat's %d:%i gives it. */
  inode: string;
  /** As in "Refused to start on X": what the target shows. */
  source: string;
}

/** What it prints where nobody else uses its output. */
export const gatePassed = "Mounts are as judged";

/**
 * What the container is to run in the place of `command`. `home` is a mount below
 * HAL9000_HOME, which nobody else can replace: where even that has another inode,
 * the engine has another kernel, and inodes cannot be compared. It exits with
 * the code of a refusal.
 */
export function gated(
  home: GateCheck,
  checks: GateCheck[],
  command: string[],
  { announce }: { announce: boolean },
): { Entrypoint: string[]; Cmd: string[] } {
  const targets = [home, ...checks].map(({ target }) => quote(target));
  const script = [
    gateScript,
    // One process for all: a fork costs more than the comparison.
    `found="\n$(stat -c '%d:%i %n' -- ${targets.join(" ")} 2>/dev/null)\n"`,
    `case $found in *${quote(` ${home.target}\n`)}*) ;; *)`,
    `  refuse "the image has no stat, so mounts cannot be checked" ;; esac`,
    `case $found in *${quote(inodeLine(home))}*) comparable=yes ;; esac`,
    ...checks.map((check) =>
      `check ${
        [
          check.target,
          mountinfoText(check.target),
          inodeLine(check),
          printable(check.source),
        ].map(quote).join(" ")
      }`
    ),
    ...(announce ? [`echo ${quote(gatePassed)}`] : []),
    'exec "$@"',
  ].join("\n");
  return { Entrypoint: ["/bin/sh", "-c", script, "sh"], Cmd: command };
}

/** A mount may also have been made elsewhere: its target's path may have links. */
const gateScript = `comparable=
points='
'
while read -r _ _ _ _ point _; do points="$points$point
"; done </proc/self/mountinfo
check() {
  case $points in *"
$2
"*) ;; *) refuse "$4 was not mounted at $1: a part of that path is a link" ;; esac
  [ -n "$comparable" ] || return 0
  case $found in *"$3"*) ;; *) refuse "$4 was replaced while it was being mounted" ;; esac
}
refuse() {
  echo "error: Refused to start: $1
Look at what is there now, then try again." >&2
  exit ${exitCode.unsafe}
}`;

/** As stat writes it; no target has a line break in it, see isTarget(). */
function inodeLine({ inode, target }: GateCheck): string {
  return `\n${inode} ${target}\n`;
}

/** As proc_pid_mountinfo(5) writes a path. */
function mountinfoText(path: string): string {
  return path.replace(
    /[ \t\n\\]/g,
    (character) => "\\" + character.charCodeAt(0).toString(8).padStart(3, "0"),
  );
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
