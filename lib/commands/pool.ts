// The commands of claudy pool and pool-manager.

import type { CAC } from "cac";
import * as v from "valibot";
import { type Flags, homeOf, readSettings } from "../instance/config.ts";
import { Failure } from "../std/errors.ts";
import {
  parentAnswers,
  type Reach,
  reachOf,
} from "../instance/parent-socket.ts";
import { findParent, type Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { ownerOf } from "../std/owned.ts";
import { foreignHome } from "../instance/ownership.ts";
import { homePaths } from "../instance/paths.ts";
import {
  askPool,
  checkAnswer,
  claim,
  claimRequest,
  type PoolRequest,
  poolStatus,
} from "../pool/client.ts";
import {
  type PoolStatus,
  poolStatusSchema,
  type Sizes,
  sizesSchema,
} from "../pool/protocol.ts";
import { readDesired, writeDesired } from "../pool/desired.ts";
import { binarySize, limitCell } from "../std/units.ts";
import { waitFor } from "../std/wait.ts";
import { ensureHome } from "../instance/volumes.ts";
import { columns } from "../std/text.ts";
import { pidsLimit } from "../worker/limits.ts";
import { dashed, flagsOf, wholeNumber } from "../cli/options.ts";
import { networkOption } from "./start-options.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";

interface Options {
  minWarm?: unknown;
  maxWarm?: unknown;
  idleTimeout?: unknown;
  checkInterval?: unknown;
  network?: unknown;
  name?: string;
  json?: boolean;
}

/** The options of start, and the variables that are used without them. */
const sizeOptions = [
  ["minWarm", "MIN_WARM_WORKERS"],
  ["maxWarm", "MAX_WARM_WORKERS"],
  ["idleTimeout", "IDLE_TIMEOUT"],
  ["checkInterval", "CHECK_INTERVAL"],
] as const;

const removedSchema = v.object({ removed: v.number() });
const scaledSchema = v.object({ capped: v.boolean(), minWarm: v.number() });

export function poolCommand(name: string, io: Io): CAC {
  const cli = command(name);
  const jsonOption = ["--json", "Print the result as JSON"] as const;
  const ask = (op: PoolRequest) => askStarting(local(io), op);

  cli.command("start", "Start the pool, or change its size")
    .option(
      "--min-warm <n>",
      "Minimum number of warm workers (default: MIN_WARM_WORKERS)",
    )
    .option(
      "--max-warm <n>",
      "Maximum number of warm workers (default: MAX_WARM_WORKERS)",
    )
    .option(
      "--idle-timeout <seconds>",
      "Idle seconds before an extra worker is removed (default: IDLE_TIMEOUT)",
    )
    .option(
      "--check-interval <seconds>",
      "Seconds between checks of the pool (default: CHECK_INTERVAL)",
    )
    .option(
      "--network <kind>",
      "Network of the warm workers: shared or isolated (default: WORKER_NETWORK)",
    )
    .option(...jsonOption)
    .action(async (options: Options) =>
      show(io, await start(io, options), options)
    );

  cli.command(
    "stop",
    "Stop the pool and remove its warm workers; claimed ones keep running",
  )
    .option(...jsonOption)
    .action(async ({ json }: Options) => {
      const reach = local(io);
      const reply = await askPool(reach, { op: "stop" });
      const { removed } = checkAnswer(removedSchema, reply);
      await waitFor(() => isStopped(reach), {
        for: "the pool to end",
        timeoutMs: 10_000,
      });
      const text = `Pool stopped; warm workers removed: ${removed}`;
      io.answer({ removed }, text, json);
    });

  cli.command("status", "Show the pool")
    .option(...jsonOption)
    .action(async (options: Options) => show(io, await statusOf(io), options));

  cli.command("scale <n>", "Set the number of warm workers")
    .option(...jsonOption)
    .action(async (given: unknown, { json }: Options) => {
      const warm = wholeNumber("The number of workers", given) ?? 0;
      const reply = await ask({ op: "scale", warm });
      const scaled = checkAnswer(scaledSchema, reply);
      const { capped, minWarm } = scaled;
      if (capped) {
        io.log(
          `${warm} exceeds max: keeping ${minWarm}. To raise it: claudy pool start --max-warm N`,
        );
      }
      io.answer(scaled, `Min warm: ${minWarm}`, json);
    });

  for (
    const [op, meaning] of [
      ["cleanup", "Remove dead warm workers and those above the minimum"],
      [
        "drain",
        "Remove all warm workers and create none until start, scale or warm",
      ],
    ] as const
  ) {
    cli.command(op, meaning)
      .option(...jsonOption)
      .action(async ({ json }: Options) => {
        const { removed } = checkAnswer(removedSchema, await ask({ op }));
        io.answer({ removed }, `Warm workers removed: ${removed}`, json);
      });
  }

  cli.command("warm", "Fill the pool to its minimum and wait")
    .option(...jsonOption)
    .action(async (options: Options) =>
      show(
        io,
        checkAnswer(poolStatusSchema, await ask({ op: "warm" })),
        options,
      )
    );

  cli.command(
    "claim [project_dir]",
    "Claim a warm worker for a project and print its name",
  )
    .option("-n, --name <name>", "Name of the worker (default: generated)")
    .option(...networkOption)
    .option(...jsonOption)
    .action((directory: unknown, options: Options) =>
      claimOne(io, String(directory ?? "."), options)
    );

  return cli;
}

async function isStopped(reach: Reach): Promise<boolean> {
  try {
    await poolStatus(reach);
    return false;
  } catch {
    return true;
  }
}

/**
 * Opens the home without asking Docker. The pool is reached through a socket in the
 * home, so it is enough to check whose home that is.
 */
function local(
  io: Io,
  { views = false, flags = {} }: { views?: boolean; flags?: Flags } = {},
) {
  const home = homePaths(homeOf(io.env));
  const settings = readSettings(io.env, { warn: io.log, flags });
  const failure = foreignHome({ home, prefix: settings.HAL9000_PREFIX });
  if (failure && !views) throw failure;
  if (failure) io.log(`warning: ${failure.message}`);
  return { ...reachOf(io.env, home), settings, owner: ownerOf(home.home) };
}

/** How long a manager may take to listen on a busy machine. */
const startMs = 20_000;

/** Sends a request to a pool that may still be starting, as after daemon start. */
async function askStarting(
  here: Reach & Pick<Instance, "settings" | "owner">,
  body: PoolRequest,
  { parentRuns = false } = {},
): Promise<unknown> {
  return await waitFor(async () => {
    try {
      return await askPool(here, body);
    } catch (error) {
      const absent = error instanceof Failure && error.kind === "notFound";
      if (!absent || !readDesired(here).enabled) throw error;
      // Only the parent starts a pool.
      if (!parentRuns && !await parentAnswers(here)) throw error;
      return undefined;
    }
  }, {
    for: "the pool to listen",
    timeoutMs: startMs,
    everyMs: 100,
    hint: `See ${here.home.childLog("pool")}.`,
  });
}

async function start(io: Io, options: Options): Promise<PoolStatus> {
  const sizes = readSizes(options, io.env);
  const flags = networkFlag(options);
  const instance = await openInstance(io.env, io.log, flags);
  const network = flags.WORKER_NETWORK && instance.settings.WORKER_NETWORK;
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
  writeDesired(instance, true, sizes, network);
  const body = {
    op: "resize",
    sizes,
    ...(network && { network }),
  } as const;
  const reply = await askStarting(instance, body, { parentRuns: true });
  return checkAnswer(poolStatusSchema, reply);
}

const networkFlag = ({ network }: Options) =>
  flagsOf({ network }, { network: "WORKER_NETWORK" });

/** Checked before it is saved, since the pool manager reads it at every start. */
function readSizes(options: Options, env: NodeJS.ProcessEnv): Sizes {
  const settings = readSettings(env);
  const sizes = Object.fromEntries(sizeOptions.flatMap(([option, variable]) => {
    const value = wholeNumber(dashed(option), options[option]) ??
      (env[variable] ? settings[variable] : undefined);
    return value === undefined ? [] : [[option, value]];
  }));
  const parsed = v.safeParse(sizesSchema, sizes);
  if (parsed.success) return parsed.output;
  const [issue] = parsed.issues;
  const option = dashed(String(issue.path?.[0].key));
  throw new Failure("usage", `${option} ${issue.message}, got ${issue.input}`);
}

async function claimOne(
  io: Io,
  directory: string,
  { name, json, ...options }: Options,
): Promise<void> {
  const { settings, ...reach } = local(io, { flags: networkFlag(options) });
  const request = claimRequest(settings, { directory, cwd: io.cwd(), name });
  const reply = await claim(reach, request);
  if (reply.start === "cold") {
    throw new Failure(
      "resources",
      `There is nothing to claim: ${reply.reason}`,
      {
        hint:
          "See why: claudy pool status. Or start a cold worker: hal9000-spawn-worker -d",
      },
    );
  }
  io.answer(reply.worker, reply.worker.name, json);
}

/** The status of a running pool, or the settings of a stopped one. */
async function statusOf(io: Io): Promise<PoolStatus> {
  const here = local(io, { views: true });
  const { settings } = here;
  try {
    return await poolStatus(here);
  } catch (error) {
    if (!(error instanceof Failure && error.kind === "notFound")) throw error;
  }
  const { sizes, network } = readDesired(here);
  return {
    running: false,
    unavailable: null,
    warm: [],
    creating: 0,
    busy: [],
    ...sizes,
    network,
    profiles: [],
    limits: {
      memoryBytes: settings.WORKER_MEMORY,
      cpus: settings.WORKER_CPUS,
      pids: pidsLimit(settings),
    },
    metrics: {
      claims: { warm: 0, cold: {} },
      latencyMs: { p50: null, p95: null, p99: null },
      creations: 0,
      failures: 0,
      lastFailure: null,
    },
  };
}

function show(io: Io, status: PoolStatus, { json }: Options): void {
  io.answer(status, statusText(status), json);
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
      ["  Creating:", String(status.creating)],
      ["  Min warm:", String(status.minWarm)],
      ["  Max warm:", String(status.maxWarm)],
      ["  Idle timeout:", `${status.idleTimeout}s`],
      ["  Check interval:", `${status.checkInterval}s`],
      ...(status.network === "isolated" ? [["  Network:", "isolated"]] : []),
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
      ["  Memory:", limitCell(limits.memoryBytes, binarySize)],
      ["  CPUs:", limitCell(limits.cpus)],
      ["  PIDs:", limitCell(limits.pids)],
    ]),
    "Claims",
    columns([
      ["  Warm:", String(metrics.claims.warm)],
      [
        "  Cold:",
        cold.map(([reason, count]) => `${count} (${reason})`).join(", ") || "0",
      ],
      ["  Latency:", latency],
      ["  Created:", String(metrics.creations)],
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
