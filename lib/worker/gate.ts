// The gate: the first process of a worker. Before anything else runs there, it compares
// the mounts with what was checked on the host. The engine resolves a mount's source
// again, and follows links that may have been created since the check. In an isolated
// worker, it then waits for the services.

import { exitCode } from "../std/errors.ts";
import { printable, shellQuoted } from "../std/text.ts";

/** A mount to verify. */
export interface GateCheck {
  target: string;
  /** Device and inode, in the format of stat's %d:%i. */
  inode?: string | undefined;
  /** The mount that this one is a part of, and where. Its files may be replaced. */
  within?: { target: string; path: string | undefined } | undefined;
  /** The source path on the host, for messages. */
  source: string;
}

/** The line that the gate prints on success if `announce` is set. */
export const gatePassed = "Mounts verified";

/**
 * The entrypoint and command that check the mounts, then run `command`. `home` is a
 * mount below HAL9000_HOME, which nobody else can replace: if even its inode differs, the
 * engine runs on another kernel, and inodes are not compared. If a check fails, it exits
 * with the exit code of an `unsafe` Failure.
 */
export function gated(
  home: GateCheck & { inode: string },
  checks: GateCheck[],
  command: string[],
  { ports, announce }: { ports: number[]; announce: boolean },
): { Entrypoint: string[]; Cmd: string[] } {
  const inodes = checks.filter(({ inode }) => inode !== undefined);
  const targets = [home, ...inodes].map(({ target }) => shellQuoted(target));
  const script = [
    gateScript,
    // One stat for all targets: a fork costs more than the comparison.
    `found="\n$(stat -c '%d:%i %n' -- ${targets.join(" ")} 2>/dev/null)\n"`,
    `case $found in *${shellQuoted(` ${home.target}\n`)}*) ;; *)`,
    `  refuse "the image has no stat, so mounts cannot be checked" ;; esac`,
    `case $found in *${shellQuoted(inodeLine(home))}*) comparable=yes ;; esac`,
    ...checks.map(checkLine),
    ...(ports.length > 0
      ? [servicesScript, `await ${ports.map(hexPort).join(" ")}`]
      : []),
    ...(announce ? [`echo ${shellQuoted(gatePassed)}`] : []),
    'exec "$@"',
  ].join("\n");
  return { Entrypoint: ["/bin/sh", "-c", script, "sh"], Cmd: command };
}

function checkLine(check: GateCheck): string {
  const { target, within, source } = check;
  const place = [target, mountinfoText(target)];
  const [called, ...values] = !within
    ? ["check", ...place, inodeLine(check)]
    : within.path === undefined
    ? ["mounted", ...place]
    : [
      "part",
      ...place,
      mountinfoText(within.target),
      mountinfoText(within.path),
    ];
  return [called, ...[...values, printable(source)].map(shellQuoted)].join(" ");
}

/** How often the gate looks for the services, every 20 ms at most. */
const maxTries = 500;

/** Also checks the mount points: a link in the target's path would redirect a mount. */
const gateScript = `comparable=
points='
'
while read -r _ _ device root point _; do points="$points$point $device \${root%/}
"; done </proc/self/mountinfo
check() {
  mounted "$1" "$2" "$4"
  [ -n "$comparable" ] || return 0
  case $found in *"$3"*) ;; *) refuse "$4 was replaced while it was being mounted" ;; esac
}
part() {
  mounted "$1" "$2" "$5"
  found_at "$2" && part=$at && found_at "$3"
  [ "$part" = "$at$4" ] || refuse "$5 was replaced while it was being mounted"
}
mounted() {
  case $points in *"
$2 "*) ;; *) refuse "$3 was not mounted at $1: a part of that path is a symlink" ;; esac
}
found_at() {
  at=\${points##*"
$1 "}
  at=\${at%%"
"*}
}
refuse() {
  echo "error: Refused to start: $1
Check the mounted paths, then try again." >&2
  exit ${exitCode.unsafe}
}`;

/** What the gate prints if the services were not opened. */
export const noServices = "Its services were not opened in time";

/** Waits until something listens on each port: proc_net(5), state 0A. */
const servicesScript = `listens() {
  while read -r _ local _ state _; do
    case $local,$state in *":$1,0A") return 0 ;; esac
  done </proc/net/tcp
  return 1
}
await() {
  tries=0
  for port; do
    until listens "$port"; do
      tries=$((tries + 1))
      [ $tries -lt ${maxTries} ] || {
        echo "error: ${noServices}" >&2
        exit ${exitCode.failed}
      }
      sleep 0.02
    done
  done
}`;

const hexPort = (port: number) =>
  port.toString(16).toUpperCase().padStart(4, "0");

/** A line of stat's output. Targets contain no line breaks, see isTarget(). */
function inodeLine({ inode, target }: GateCheck): string {
  return `\n${inode} ${target}\n`;
}

/** Escapes a path like proc_pid_mountinfo(5). */
function mountinfoText(path: string): string {
  return path.replace(
    /[ \t\n\\]/g,
    (character) => "\\" + character.charCodeAt(0).toString(8).padStart(3, "0"),
  );
}
