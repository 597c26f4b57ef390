// Measures the time from a command to Claude's prompt, at a terminal.

import { spawn } from "node:child_process";
import { removeContainer } from "../../lib/docker/docker.ts";
import { Failure } from "../../lib/std/errors.ts";
import { type Instance } from "../../lib/instance/instance.ts";
import { openInstance } from "../../lib/instance/open.ts";
import { askPool } from "../../lib/pool/client.ts";
import { removeSession } from "../../lib/session/session.ts";
import { tmux } from "../../lib/session/tmux.ts";
import { spawnWorker } from "../../lib/worker/spawn.ts";
import { listWorkers } from "../../lib/worker/workers.ts";
import { interleaved, type Measured, row, timed } from "./timing.ts";

/** The CLI's input prompt. */
const prompt = "❯";

/** The CLI retries an unreachable API; the prompt does not wait for that. */
const unreachable = {
  ANTHROPIC_BASE_URL: "http://127.0.0.1:9",
  ANTHROPIC_API_KEY: "sk-ant-none",
};

/** The environment for a CLI that reaches no API. */
function quietEnv(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { TMUX: _, ...others } = env;
  return { ...others, ...unreachable, TERM: "xterm-256color" };
}

/**
 * Milliseconds until a command shows the prompt. The command gets its own terminal, which
 * then closes.
 */
async function untilPrompt(
  command: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<number> {
  const words = command.map((word) => `'${word.replaceAll("'", `'\\''`)}'`);
  const line = `stty cols 100 rows 30; exec ${words.join(" ")}`;
  const startedAt = performance.now();
  const terminal = spawn("script", ["-qfec", line, "/dev/null"], {
    env,
    stdio: ["pipe", "pipe", "inherit"],
  });
  try {
    let shown = "";
    terminal.stdout.setEncoding("utf8");
    for await (const text of terminal.stdout) {
      shown += text;
      if (shown.includes(prompt)) return performance.now() - startedAt;
    }
    throw new Failure("failed", `No prompt came: ${shown.slice(-500)}`);
  } finally {
    terminal.kill("SIGHUP");
  }
}

export interface PromptSetting {
  instance: Instance;
  env: NodeJS.ProcessEnv;
  project: string;
  /** Options of docker run for a container like a worker. */
  flags: string[];
  samples: number;
  run: (file: string, ...args: string[]) => string;
  claudy: string;
}

/** Times to the prompt with a warm and a cold worker, and the times of the steps. */
export async function measurePrompts(
  { instance, env, project, flags, samples, run, claudy }: PromptSetting,
): Promise<Measured[]> {
  const { docker, home, prefix } = instance;
  const container = `${prefix}-prompted`;
  const terminal = quietEnv(env);
  const named = "prompted";
  const prompted = async (pool: boolean) => {
    if (pool) await askPool({ home }, { op: "warm" });
    else await askPool({ home }, { op: "drain" });
    const ms = await untilPrompt(
      [claudy, "--name", named, project],
      terminal,
    );
    await removeSession(instance, named, () => {});
    return ms;
  };
  const helper = JSON.stringify({ apiKeyHelper: "echo sk-ant-none" });
  const prompts = await interleaved(samples, {
    warm: () => prompted(true),
    cold: () => prompted(false),
    dockerRun: async () => {
      const { ANTHROPIC_API_KEY: _, ...quiet } = terminal;
      const ms = await untilPrompt([
        "docker",
        "run",
        "--interactive",
        "--tty",
        `--name=${container}`,
        "--env=ANTHROPIC_BASE_URL",
        ...flags,
        "claude",
        "--settings",
        helper,
      ], quiet);
      await removeContainer(docker, container);
      return ms;
    },
  });
  await askPool({ home }, { op: "warm" });
  const opened = await spawnWorker(
    instance,
    { directory: project, cwd: "/" },
    () => {},
  );
  const inWorker = (...command: string[]) =>
    run("docker", "exec", opened.id, ...tmux, ...command);
  const steps = await interleaved(samples, {
    process: () => timed(() => run(claudy, "--version")),
    open: () => timed(() => openInstance(env, () => {})),
    worker: () => timed(() => listWorkers(instance)),
    terminal: async () => {
      const ms = await timed(() => inWorker("new-session", "-d", "sleep 60"));
      inWorker("kill-server");
      return ms;
    },
  });
  await removeContainer(docker, opened.id);

  return [
    row(
      "claudy to the prompt, warm",
      prompts.warm,
      "docker run to the prompt",
      prompts.dockerRun,
    ),
    row(
      "claudy to the prompt, cold",
      prompts.cold,
      "docker run to the prompt",
      prompts.dockerRun,
    ),
    row("  of it: claudy's process", steps.process, null, []),
    row("  of it: settings and engine", steps.open, null, []),
    row("  of it: looking for the worker", steps.worker, null, []),
    row("  of it: docker exec and tmux", steps.terminal, null, []),
  ];
}
