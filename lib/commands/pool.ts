// The pool's commands, as pool-manager and claudy offer them.

import process from "node:process";
import type { CAC } from "cac";
import * as v from "valibot";
import { homeOf, readSettings } from "../instance/config.ts";
import { Failure } from "../std/errors.ts";
import { parentAnswers } from "../instance/parent-socket.ts";
import { findParent } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { logToStderr } from "../std/log.ts";
import { ownerOf } from "../std/owned.ts";
import { foreignHome } from "../instance/ownership.ts";
import { homePaths } from "../instance/paths.ts";
import {
  askPool,
  claim,
  claimRequest,
  type PoolRequest,
  poolStatus,
} from "../pool/client.ts";
import { type PoolStatus, type Sizes, sizesSchema } from "../pool/protocol.ts";
import { readWish, writeWish } from "../pool/wish.ts";
import { binarySize } from "../std/units.ts";
import { waitFor } from "../std/wait.ts";
import { ensureHome } from "../instance/volumes.ts";
import { columns } from "../std/text.ts";
import { dashed, wholeNumber } from "../cli/options.ts";
import { answer } from "../cli/output.ts";

export interface PoolOptions {
  minWarm?: unknown;
  maxWarm?: unknown;
  idleTimeout?: unknown;
  checkInterval?: unknown;
  name?: string;
  json?: boolean;
}

interface PoolAction {
  meaning: string;
  /** What it takes, as cac writes it. */
  argument?: string;
  /** Names of its options besides --json. */
  options?: (keyof PoolOptions)[];
  run(options: PoolOptions, argument: string | undefined): Promise<void>;
}

const sizeOptions = [
  "minWarm",
  "maxWarm",
  "idleTimeout",
  "checkInterval",
] as const;

const { env } = process;
const json = ({ json }: PoolOptions) => json ?? false;

export const poolActions: Record<string, PoolAction> = {
  start: {
    meaning: "Keep warm workers from now on, or change how many",
    options: [...sizeOptions],
    run: start,
  },
  stop: {
    meaning: "Remove the warm workers and keep none; claimed ones stay",
    run: async (options) => {
      const here = local();
      const { removed } = await askPool(here.home.poolSocket, {
        op: "stop",
      }) as { removed: number };
      await waitFor(() => isStopped(here.home.poolSocket), {
        for: "the pool to end",
        timeoutMs: 10_000,
      });
      answer(
        { removed },
        `Pool stopped; warm workers removed: ${removed}`,
        json(options),
      );
    },
  },
  status: { meaning: "Show the pool", run: showStatus },
  scale: {
    meaning: "Keep so many warm workers",
    argument: "<n>",
    run: async (options, argument) => {
      const warm = wholeNumber("The number of workers", Number(argument));
      const { capped, minWarm } = await askStarting({
        op: "scale",
        warm: warm ?? 0,
      }) as { capped: boolean; minWarm: number };
      if (capped) {
        logToStderr(
          `${warm} exceeds max: keeping ${minWarm}. See pool start --max-warm.`,
        );
      }
      answer({ minWarm, capped }, `Min warm: ${minWarm}`, json(options));
    },
  },
  cleanup: {
    meaning: "Remove warm workers above the minimum, and dead ones",
    run: (options) => removeSome(options, "cleanup"),
  },
  warm: {
    meaning: "Fill the pool to its minimum now, and wait for it",
    run: async (options) => {
      const status = await askStarting({ op: "warm" });
      show(status as PoolStatus, options);
    },
  },
  claim: {
    meaning: "Claim a warm worker for a project; print its name",
    argument: "[project_dir]",
    options: ["name"],
    run: claimOne,
  },
  drain: {
    meaning:
      "Remove all warm workers; none is made before start, scale or warm",
    run: (options) => removeSome(options, "drain"),
  },
};

/** Adds the options that an action of the pool takes. */
export function addPoolOptions(
  command: ReturnType<CAC["command"]>,
  wanted?: (keyof PoolOptions)[],
): ReturnType<CAC["command"]> {
  const known: [keyof PoolOptions, string, string][] = [
    [
      "minWarm",
      "--min-warm <n>",
      "start: warm workers that are always ready (default: 2)",
    ],
    ["maxWarm", "--max-warm <n>", "start: warm workers at most (default: 5)"],
    [
      "idleTimeout",
      "--idle-timeout <seconds>",
      "start: before one above the minimum goes (default: 300)",
    ],
    [
      "checkInterval",
      "--check-interval <seconds>",
      "start: between two looks at the pool (default: 30)",
    ],
    [
      "name",
      "-n, --name <name>",
      "claim: name of the worker (default: made up)",
    ],
  ];
  for (const [option, flags, meaning] of known) {
    if (!wanted || wanted.includes(option)) {
      const [, rest] = meaning.split(/^\w+: /);
      command.option(flags, wanted ? rest ?? meaning : meaning);
    }
  }
  return command.option("--json", "Print the result as JSON");
}

/** Refuses what the action would not heed. */
export function checkPoolOptions(
  name: string,
  action: PoolAction,
  options: PoolOptions,
  argument: string | undefined,
): void {
  const heeded: string[] = action.options ?? [];
  const stray = [...sizeOptions, "name"].find((option) =>
    options[option as keyof PoolOptions] !== undefined &&
    !heeded.includes(option)
  );
  if (stray !== undefined) {
    throw new Failure("usage", `${dashed(stray)} is nothing for pool ${name}`);
  }
  if (argument !== undefined && action.argument === undefined) {
    throw new Failure("usage", `pool ${name} takes no argument`);
  }
  if (argument === undefined && action.argument?.startsWith("<")) {
    throw new Failure("usage", `pool ${name} needs ${action.argument}`);
  }
}

async function isStopped(socket: string): Promise<boolean> {
  try {
    await poolStatus(socket);
    return false;
  } catch {
    return true;
  }
}

/**
 * What is known without asking Docker. The pool is reached by a socket of the home,
 * so that it is enough to compare whose home that is.
 */
function local({ views = false } = {}) {
  const home = homePaths(homeOf(env));
  const settings = readSettings(env, { warn: logToStderr });
  const failure = foreignHome({ home, prefix: settings.HAL9000_PREFIX });
  if (failure && !views) throw failure;
  if (failure) logToStderr(`warning: ${failure.message}`);
  return { home, settings, owner: ownerOf(home.home) };
}

/** How long a manager takes to listen, on a machine that is busy. */
const startMs = 20_000;

/** Asks a pool that may only be starting, as after daemon start. */
async function askStarting(body: PoolRequest): Promise<unknown> {
  const here = local();
  return await waitFor(async () => {
    try {
      return await askPool(here.home.poolSocket, body);
    } catch (error) {
      const absent = error instanceof Failure && error.kind === "notFound";
      if (!absent || !readWish(here).enabled) throw error;
      // Without a parent nobody starts it.
      if (!await parentAnswers(here)) throw error;
      return undefined;
    }
  }, {
    for: "the pool to listen",
    timeoutMs: startMs,
    everyMs: 100,
    hint: `See ${here.home.childLog("pool")}.`,
  });
}

async function start(options: PoolOptions): Promise<void> {
  const sizes = readSizes(options);
  const instance = await openInstance(env, logToStderr);
  const parent = instance.self ?? await findParent(instance);
  if (parent?.State !== "running") {
    throw new Failure(
      "notFound",
      "Cannot start the pool: the parent is not running",
      {
        hint: "Start it: claudy daemon start",
      },
    );
  }
  ensureHome(instance);
  writeWish(instance, true, sizes);
  const { poolSocket } = instance.home;
  const status = await waitFor(async () => {
    try {
      return await askPool(poolSocket, { op: "resize", sizes }) as PoolStatus;
    } catch (error) {
      if (error instanceof Failure && error.kind === "notFound") {
        return undefined;
      }
      throw error;
    }
  }, {
    for: "the pool to listen",
    timeoutMs: 20_000,
    hint: `See ${instance.home.childLog("pool")}.`,
  });
  show(status, options);
}

/** Judged before it is written down: the pool manager reads it at every start. */
function readSizes(options: PoolOptions): Sizes {
  const sizes = Object.fromEntries(sizeOptions.flatMap((option) => {
    const value = wholeNumber(dashed(option), options[option]);
    return value === undefined ? [] : [[option, value]];
  }));
  const parsed = v.safeParse(sizesSchema, sizes);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  const option = dashed(String(issue.path?.[0].key));
  throw new Failure("usage", `${option} ${issue.message}, got ${issue.input}`);
}

async function removeSome(
  options: PoolOptions,
  op: "cleanup" | "drain",
): Promise<void> {
  const { removed } = await askStarting({ op }) as { removed: number };
  answer({ removed }, `Warm workers removed: ${removed}`, json(options));
}

async function claimOne(
  options: PoolOptions,
  directory: string | undefined,
): Promise<void> {
  const { home, settings } = local();
  const reply = await claim(
    home,
    claimRequest(settings, {
      directory: directory ?? ".",
      cwd: process.cwd(),
      name: options.name,
    }),
  );
  if (reply.start === "cold") {
    throw new Failure(
      "resources",
      `There is nothing to claim: ${reply.reason}`,
      {
        hint: "See pool-manager status; spawn-worker spawns a cold one.",
      },
    );
  }
  answer(reply.worker, reply.worker.name, json(options));
}

async function showStatus(options: PoolOptions): Promise<void> {
  const { home, settings, owner } = local({ views: true });
  try {
    return show(await poolStatus(home.poolSocket), options);
  } catch (error) {
    if (!(error instanceof Failure && error.kind === "notFound")) throw error;
  }
  const { sizes } = readWish({ home, settings, owner });
  show({
    running: false,
    unavailable: null,
    warm: [],
    creating: 0,
    busy: [],
    ...sizes,
    profiles: [],
    limits: {
      memoryBytes: settings.WORKER_MEMORY,
      cpus: settings.WORKER_CPUS,
      pids: settings.WORKER_PIDS_LIMIT,
    },
    metrics: {
      claims: { warm: 0, cold: {} },
      latencyMs: { p50: null, p95: null, p99: null },
      creations: 0,
      failures: 0,
      lastFailure: null,
    },
  }, options);
}

function show(status: PoolStatus, options: PoolOptions): void {
  answer(status, statusText(status), json(options));
}

function profileRow(
  { name, image, present, warm }: PoolStatus["profiles"][number],
): string[] {
  return [`  ${name}:`, present ? `${warm} warm` : `${image} is not built`];
}

function statusText(status: PoolStatus): string {
  const { metrics, limits } = status;
  const { latencyMs } = metrics;
  const cold = Object.entries(metrics.claims.cold);
  const latency = latencyMs.p50 === null
    ? "none yet"
    : `p50 ${latencyMs.p50} ms, p95 ${latencyMs.p95} ms, p99 ${latencyMs.p99} ms`;
  return [
    "Worker Pool Status",
    columns([
      ["  State:", status.running ? "running" : "stopped"],
      ["  Warm (ready):", String(status.warm.length)],
      ["  Busy (in use):", String(status.busy.length)],
      ["  Being made:", String(status.creating)],
      ["  Min warm:", String(status.minWarm)],
      ["  Max warm:", String(status.maxWarm)],
      ["  Idle timeout:", `${status.idleTimeout}s`],
      ["  Check interval:", `${status.checkInterval}s`],
      [
        "  Warm claims:",
        status.unavailable === null
          ? status.running ? "possible" : "none"
          : `not possible: ${status.unavailable}`,
      ],
    ]),
    ...(status.profiles.length > 1 || status.profiles.some((p) => !p.present)
      ? ["Profiles", columns(status.profiles.map(profileRow))]
      : []),
    "Resource Limits",
    columns([
      ["  Memory:", binarySize(limits.memoryBytes)],
      ["  CPUs:", String(limits.cpus)],
      ["  PIDs:", String(limits.pids)],
    ]),
    "Claims",
    columns([
      ["  Warm:", String(metrics.claims.warm)],
      [
        "  Cold:",
        cold.map(([reason, count]) => `${count} (${reason})`).join(", ") || "0",
      ],
      ["  Latency:", latency],
      ["  Made:", String(metrics.creations)],
      [
        "  Failures:",
        metrics.lastFailure === null
          ? String(metrics.failures)
          : `${metrics.failures}, the last: ${metrics.lastFailure}`,
      ],
    ]),
    ...(status.warm.length > 0
      ? [
        "Warm workers",
        ...status.warm.map(({ name, ageSeconds }) =>
          `  - ${name} (idle: ${ageSeconds}s)`
        ),
      ]
      : []),
    ...(status.busy.length > 0
      ? [
        "Busy workers",
        ...status.busy.map(({ name, project }) => `  - ${name} (${project})`),
      ]
      : []),
  ].join("\n");
}
