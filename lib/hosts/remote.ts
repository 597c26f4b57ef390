// Runs claudy on another machine by the system's ssh, over the connection that commands share.

import { spawn } from "node:child_process";
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

/** More than the answer of any command but lists. */
const defaultMaxAnswer = 1024 ** 2;

export interface Reply {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** The command line that runs claudy there. Its login shell must read quotes as POSIX says. */
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

export interface Asking {
  env: NodeJS.ProcessEnv;
  timeoutMs: number;
  input?: Readable;
  /** Asks nothing at the terminal. */
  batch?: boolean;
  maxBytes?: number;
}

/** Runs a command line there and returns what it prints. Throws if it cannot be run in time. */
export async function askHost(
  host: Host,
  line: string,
  asking: Asking,
): Promise<Reply> {
  const { env, timeoutMs, batch = false } = asking;
  const target = targetOf(host);
  const agent = new SshAgent(target, env, { batch });
  const late = new AbortController();
  const timer = setTimeout(() => {
    agent.abandon();
    late.abort();
  }, timeoutMs);
  try {
    const options = await agent.share();
    const words = [...options, "--", target.destination, line];
    const reply = await replyOf(words, asking, late.signal);
    if (reply.exitCode === sshFailed) throw sshFailure(target, reply.stderr);
    return reply;
  } catch (error) {
    throw late.signal.aborted ? lateFailure(host) : hostFailure(host, error);
  } finally {
    clearTimeout(timer);
  }
}

async function replyOf(
  words: string[],
  { env, input, maxBytes = defaultMaxAnswer }: Asking,
  late: AbortSignal,
): Promise<Reply> {
  const child = spawn("ssh", words, {
    cwd: "/",
    env,
    stdio: [input ? "pipe" : "ignore", "pipe", "pipe"],
  });
  // The shared connection holds the other ends of the pipes until the command there has ended.
  const leave = () => {
    child.kill("SIGKILL");
    for (const stream of [child.stdin, child.stdout, child.stderr]) {
      stream?.destroy();
    }
    child.unref();
  };
  const kept = { stdout: "", stderr: "" };
  try {
    return await new Promise((resolve, reject) => {
      late.addEventListener("abort", () => reject(late.reason));
      if (late.aborted) reject(late.reason);
      for (const name of ["stdout", "stderr"] as const) {
        child[name]?.setEncoding("utf8").on("data", (part: string) => {
          kept[name] += part;
          if (kept[name].length <= maxBytes) return;
          reject(new Failure("failed", "Its answer is too long"));
        });
      }
      if (input && child.stdin) {
        // The end of the child says why it reads no more.
        child.stdin.on("error", () => input.destroy());
        input.on("error", reject);
        input.pipe(child.stdin);
      }
      child.on("error", reject);
      child.on("close", (code) => {
        resolve({ exitCode: code ?? sshFailed, ...kept });
      });
    });
  } finally {
    leave();
  }
}

/**
 * Runs a command line there at this terminal; returns its exit code. Without a terminal, it
 * gets the standard input only if it needs it: the caller's other commands may.
 */
export async function runOnHost(
  host: Host,
  line: string,
  { env, terminal, input, output = "stdout" }: {
    env: NodeJS.ProcessEnv;
    terminal: boolean;
    input: boolean;
    /** Where its standard output goes. */
    output?: "stdout" | "stderr";
  },
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
    ], {
      cwd: "/",
      env,
      stdio: [
        terminal || input ? "inherit" : "ignore",
        output === "stderr" ? 2 : "inherit",
        "inherit",
      ],
    });
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
