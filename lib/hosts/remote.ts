// Runs claudy on another machine by the system's ssh, over the connection that commands share.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import type { Readable } from "node:stream";
import { Unreachable } from "../docker/docker-errors.ts";
import { SshAgent, sshFailure } from "../docker/ssh.ts";
import { Failure } from "../std/errors.ts";
import { interceptSignals } from "../std/signals.ts";
import { shellQuoted } from "../std/text.ts";
import { type Host, targetOf } from "./hosts.ts";

/** ssh's own exit code for its failures. */
const sshFailed = 255;

/** More than any answer of claudy, such as a list of 10,000 sessions. */
const maxAnswer = 32 * 1024 ** 2;

export interface Reply {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** The command line that runs claudy there. Its shell may be any. */
export function claudyThere(host: Host, argv: readonly string[]): string {
  if (host.program === null) {
    throw new Failure(
      "notFound",
      `Host "${host.name}" does not have this program`,
      {
        hint: `Install it: claudy host install ${host.name}`,
      },
    );
  }
  const home = host.home === null ? [] : [`HAL9000_HOME=${host.home}`];
  // The hosts of that machine are not ours.
  return ["env", "HAL9000_HOSTS=off", ...home, host.program, ...argv]
    .map(shellQuoted).join(" ");
}

/** Runs a command line there and returns what it prints. Throws if it cannot be run in time. */
export async function askHost(
  host: Host,
  line: string,
  { env, timeoutMs, input }: {
    env: NodeJS.ProcessEnv;
    timeoutMs: number;
    input?: Readable;
  },
): Promise<Reply> {
  const target = targetOf(host);
  const agent = new SshAgent(target, env);
  let child: ChildProcess | undefined;
  let isLate = false;
  const late = setTimeout(() => {
    isLate = true;
    agent.abandon();
    child?.kill("SIGKILL");
  }, timeoutMs);
  try {
    const options = await agent.share();
    if (isLate) throw lateFailure(host);
    child = spawn("ssh", [...options, "--", target.destination, line], {
      cwd: "/",
      env,
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    if (input && child.stdin) {
      // The end of the child says why it reads no more.
      child.stdin.on("error", () => input.destroy());
      input.on("error", () => child?.kill("SIGKILL"));
      input.pipe(child.stdin);
    }
    const [stdout, stderr] = [
      limited(child, "stdout"),
      limited(child, "stderr"),
    ];
    const [code] = await once(child, "close") as [number | null];
    if (isLate) throw lateFailure(host);
    if (code === null || stdout.isTooLong) {
      throw new Failure("failed", `Host "${host.name}" answers too much`);
    }
    if (code === sshFailed) throw sshFailure(target, stderr.text);
    return { exitCode: code, stdout: stdout.text, stderr: stderr.text };
  } catch (error) {
    throw isLate ? lateFailure(host) : hostFailure(host, error);
  } finally {
    clearTimeout(late);
  }
}

function limited(child: ChildProcess, name: "stdout" | "stderr") {
  const kept = { text: "", isTooLong: false };
  child[name]?.setEncoding("utf8").on("data", (part: string) => {
    if (kept.text.length + part.length <= maxAnswer) kept.text += part;
    else {
      kept.isTooLong = true;
      child.kill("SIGKILL");
    }
  });
  return kept;
}

/** Runs a command line there at this terminal; returns its exit code. */
export async function runOnHost(
  host: Host,
  line: string,
  { env, terminal }: { env: NodeJS.ProcessEnv; terminal: boolean },
): Promise<number> {
  const target = targetOf(host);
  try {
    const options = (await new SshAgent(target, env).share())
      .filter((word) => !terminal || word !== "-T");
    const child = spawn("ssh", [
      ...options,
      // Not its line that a shared connection is closed.
      ...(terminal ? ["-t", "-o", "LogLevel=ERROR"] : []),
      ...["--", target.destination, line],
    ], { cwd: "/", env, stdio: "inherit" });
    // What is typed is for the program there.
    const restore = interceptSignals((signal) => child.kill(signal));
    try {
      const [code] = await once(child, "close") as [number | null];
      return code ?? sshFailed;
    } finally {
      restore();
    }
  } catch (error) {
    throw hostFailure(host, error);
  }
}

function lateFailure({ name }: Host): Failure {
  return new Failure("engine", `Host "${name}" does not answer`, {
    hint: `See what is wrong: claudy host check ${name}`,
  });
}

function hostFailure({ name }: Host, error: unknown): unknown {
  if (!(error instanceof Unreachable)) return error;
  return new Failure(
    "engine",
    `Host "${name}" is out of reach (${error.fault})`,
    {
      cause: error,
      hint: error.hint?.replace(/ docker version$/, ""),
    },
  );
}

/** Whether this process may use other machines. */
export function usesHosts(env: NodeJS.ProcessEnv = process.env): boolean {
  return env["HAL9000_HOSTS"] !== "off";
}
