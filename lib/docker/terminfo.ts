// Sets the terminal type of programs in a container: the caller's, with its description if
// the image lacks that, else a common one. See terminfo(5) and term(5).

import { join } from "node:path";
import { readPlainFile } from "../std/plain-file.ts";

/** What most terminals support that have a name of their own. */
const fallback = "xterm-256color";

/** Descriptions are a tenth of it. It is passed as a variable. */
const maxBytes = 32 * 1024;

/** Of compiled descriptions, with numbers of 16 and of 32 bits. */
const magicNumbers = ["1a01", "1e02"];

const systemPlaces = ["/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo"];

/** For the environment of `terminalScript`, from the caller's environment. */
export function terminalVariables(
  env: NodeJS.ProcessEnv,
): { TERM: string; TERMINFO?: string } {
  const { TERM = "", TERMINFO = "" } = env;
  // "dumb" has no cursor, but is also set in terminals that can show a screen.
  if (!/^\w[\w.+-]*$/.test(TERM) || TERM === "dumb") return { TERM: fallback };
  if (/^(b64|hex):/.test(TERMINFO)) return { TERM, TERMINFO };
  for (const place of placesOf(env)) {
    const description = readDescription(place, TERM);
    // ncurses accepts a description in place of a directory.
    if (description) {
      return { TERM, TERMINFO: `b64:${description.toString("base64")}` };
    }
  }
  return { TERM };
}

function placesOf(env: NodeJS.ProcessEnv): string[] {
  const { TERMINFO = "", HOME = "", TERMINFO_DIRS = "" } = env;
  return [
    TERMINFO,
    HOME && join(HOME, ".terminfo"),
    ...TERMINFO_DIRS.split(":"),
    ...systemPlaces,
  ].filter((place) => place !== "");
}

function readDescription(place: string, terminal: string) {
  const first = terminal.charAt(0);
  for (const folder of [first, first.charCodeAt(0).toString(16)]) {
    try {
      const path = join(place, folder, terminal);
      const bytes = readPlainFile(path, { maxBytes, followLinks: true });
      if (magicNumbers.includes(bytes.toString("hex", 0, 2))) return bytes;
    } catch {
      // It may be elsewhere.
    }
  }
  return undefined;
}

/** Run in the container before its command: chooses what its programs can use. */
export const terminalScript = `known=
for at in ${systemPlaces.join(" ")}; do
  [ ! -e "$at/\${TERM%"\${TERM#?}"}/$TERM" ] || { unset TERMINFO; known=$TERM; }
done
TERM=\${known:-\${TERMINFO:+$TERM}}
TERM=\${TERM:-${fallback}}`;
