// What another machine has, and what is missing there.

import manifest from "../../package.json" with { type: "json" };
import { Readable } from "node:stream";
import { isAtLeast } from "../std/text.ts";
import { shellQuoted } from "../std/text.ts";
import type { Host } from "./hosts.ts";
import { askHost } from "./remote.ts";

export interface HostCheck {
  /** Kernel and architecture, as uname prints them. */
  system: string;
  /** Versions; null for what is not there. */
  engine: string | null;
  git: string | null;
  version: string | null;
  /** The path of claudy. */
  program: string | null;
  diskBytes: number | null;
  memoryBytes: number | null;
  /** What has to be done, a line each. */
  missing: string[];
}

/** Prints a line for each fact. $1 is the program, or empty; $2 is HAL9000_HOME, or empty. */
const script = `
program=$1
if [ -z "$program" ]; then
  program=$(command -v claudy) ||
    for one in "$HOME/.local/bin/claudy" /usr/local/bin/claudy; do
      [ ! -x "$one" ] || { program=$one; break; }
    done
fi
echo "system $(uname -sm)"
echo "engine $(docker version --format '{{.Server.Version}}' 2>/dev/null)"
echo "git $(git --version 2>/dev/null)"
[ -x "$program" ] && echo "program $program" && echo "version $("$program" --version 2>/dev/null)"
echo "disk $(df -Pk "\${2:-$HOME}" 2>/dev/null | awk 'NR == 2 { print $4 }')"
echo "memory $(awk '/^MemAvailable/ { print $2 }' /proc/meminfo 2>/dev/null)"
`;

const checkMs = 20_000;

/** Throws if the host cannot be reached. */
export async function checkHost(
  host: Host,
  env: NodeJS.ProcessEnv,
): Promise<HostCheck> {
  const words = ["--", host.program ?? "", host.home ?? ""];
  const line = `sh -s ${words.map(shellQuoted).join(" ")}`;
  const { stdout } = await askHost(host, line, {
    env,
    timeoutMs: checkMs,
    input: Readable.from([script]),
  });
  const facts = new Map(
    stdout.split("\n").map((line) => {
      const [name = "", ...rest] = line.split(" ");
      return [name, rest.join(" ").trim()] as const;
    }),
  );
  const fact = (name: string) => facts.get(name) || null;
  const kilobytes = (name: string) => {
    const text = fact(name) ?? "";
    return /^\d+$/.test(text) ? Number(text) * 1024 : null;
  };
  const found = {
    system: fact("system") ?? "",
    engine: fact("engine"),
    git: fact("git")?.replace(/^git version /, "") ?? null,
    version: fact("version")?.replace(/^claudy /, "") ?? null,
    program: fact("program"),
    diskBytes: kilobytes("disk"),
    memoryBytes: kilobytes("memory"),
  };
  return { ...found, missing: missingIn(host, found) };
}

function missingIn(
  { name }: Host,
  found: Omit<HostCheck, "missing">,
): string[] {
  const ours = manifest.version;
  const theirs = found.version?.split(" ")[0] ?? "";
  const install = `claudy host install ${name}`;
  return [
    ...(found.system.startsWith("Linux ")
      ? []
      : [`Missing: Linux, but the system is ${found.system || "unknown"}`]),
    ...(found.engine === null
      ? ["Missing: a Docker engine that the user can reach"]
      : isAtLeast(found.engine, "20.10")
      ? []
      : [`Missing: Docker 20.10 or later, but the engine is ${found.engine}`]),
    ...(found.git === null ? ["Missing: git"] : []),
    ...(found.program === null
      ? [`Missing: claudy. Install it: ${install}`]
      : theirs !== ours
      ? [
        `The program is ${
          theirs || "unknown"
        } there and ${ours} here. Update it: ${install}`,
      ]
      : []),
  ];
}
