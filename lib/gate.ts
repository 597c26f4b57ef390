// The first process of a worker: it compares what was mounted with what was
// judged on the host, before anything else runs there. The engine resolves a
// source again when it mounts it, following links that somebody may have put
// there since.

import { exitCode } from "./errors.ts";

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
  const refusals = checks.map(({ target, source, inode }) =>
    `check ${
      [target, mountinfoText(target), inode, source].map(quote).join(" ")
    }`
  );
  const script = [
    ...gateScript,
    `found=$(inode ${
      quote(home.target)
    }) || refuse "the image has no stat, so mounts cannot be checked"`,
    `[ "$found" != ${quote(home.inode)} ] || comparable=yes`,
    ...refusals,
    ...(announce ? [`echo ${quote(gatePassed)}`] : []),
    'exec "$@"',
  ].join("\n");
  return { Entrypoint: ["/bin/sh", "-c", script, "sh"], Cmd: command };
}

/** A mount may also have been made elsewhere: its target's path may have links. */
const gateScript = `comparable=
inode() { stat -c %d:%i "$1" 2>/dev/null; }
points='
'
while read -r _ _ _ _ point _; do points="$points$point
"; done </proc/self/mountinfo
check() {
  case $points in
    *"
$2
"*) [ -z "$comparable" ] || [ "$(inode "$1")" = "$3" ] || refuse "$4 was replaced while it was being mounted" ;;
    *) refuse "$4 was not mounted at $1: a part of that path is a link" ;;
  esac
}
refuse() {
  echo "error: Refused to start: $1
Look at what is there now, then try again." >&2
  exit ${exitCode.unsafe}
}`.split("\n");

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
