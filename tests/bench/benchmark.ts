#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/tests/*}/scripts/launch" "$s" "$@"'
// benchmark: compares each way to get a worker with the minimum that Docker itself needs,
// alternating in one run. It never fails because a machine is slow.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { readSettings } from "../../lib/instance/config.ts";
import {
  restartDaemon,
  startDaemon,
  stopDaemon,
} from "../../lib/daemon/daemon.ts";
import {
  createContainer,
  type Docker,
  removeContainer,
} from "../../lib/docker/docker.ts";
import { Failure } from "../../lib/std/errors.ts";
import { type Instance } from "../../lib/instance/instance.ts";
import { openInstance } from "../../lib/instance/open.ts";
import {
  askPool,
  claim,
  claimRequest,
  poolStatus,
} from "../../lib/pool/client.ts";
import { spawnWorker } from "../../lib/worker/spawn.ts";
import { clean, planClean } from "../../lib/instance/storage.ts";
import { checkout } from "../../lib/std/checkout.ts";
import { command, execute, runCli } from "../../lib/cli/cli.ts";
import { wholeNumber } from "../../lib/cli/options.ts";
import { Io } from "../../lib/cli/io.ts";
import { measurePrompts } from "./prompt-time.ts";
import { asTable, interleaved, type Measured, row, timed } from "./timing.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("benchmark");

  cli.command(
    "[benchmark]",
    "Time spawns, claims, stops and starts beside Docker's own",
  )
    .usage("[all] [options]")
    .option("--samples <n>", "Samples of each (default: 20)")
    .option("--json", "Print the figures as JSON")
    .action(async (benchmark: string | undefined, options) => {
      if (benchmark !== undefined && benchmark !== "all") {
        throw new Failure("usage", `There is no benchmark "${benchmark}"`, {
          hint: "Omit it: all are run.",
        });
      }
      const samples = wholeNumber("--samples", options.samples) ?? 20;
      if (samples < 1) {
        throw new Failure("usage", "--samples must be at least 1");
      }
      const directory = mkdtempSync(join(tmpdir(), "hal9000-bench-"));
      const env = instanceEnv(io.env, directory);
      const instance = await openInstance(env, io.log);
      try {
        await startDaemon(instance, env, () => {});
        const results = await measureAll(instance, env, directory, samples);
        io.answer(results, asTable(results), options.json);
      } finally {
        await removeInstance(instance);
        rmSync(directory, { recursive: true, force: true });
      }
    });

  return await runCli(cli, argv, io);
}

function instanceEnv(
  own: NodeJS.ProcessEnv,
  directory: string,
): NodeJS.ProcessEnv {
  const projects = join(directory, "projects");
  mkdirSync(join(projects, "app"), { recursive: true });
  const { HAL9000_PREFIX, HAL9000_IMAGE_REPO } = readSettings(own);
  return {
    ...own,
    HAL9000_PREFIX: `${HAL9000_PREFIX}-bench-${process.pid}`,
    HAL9000_IMAGE_REPO,
    HAL9000_HOME: join(directory, "home"),
    HAL9000_PROJECT_ROOTS: projects,
  };
}

/** The docker run option for a mount of a container, bind or volume. */
function mountFlag(
  { Type, Source, Target, ReadOnly, VolumeOptions }: Docker.MountSettings,
): string {
  return [
    `--mount=type=${Type}`,
    `source=${Source}`,
    `target=${Target}`,
    ...(ReadOnly ? ["readonly"] : []),
    ...(VolumeOptions?.NoCopy ? ["volume-nocopy"] : []),
  ].join(",");
}

async function removeInstance(instance: Instance): Promise<void> {
  const { docker, prefix } = instance;
  const left = await docker.listContainers({
    all: true,
    filters: { label: [`hal9000.instance=${prefix}`, "hal9000.role=worker"] },
  });
  for (const { Id } of left) await removeContainer(docker, Id);
  await stopDaemon(instance, () => {});
  await clean(instance, await planClean(instance));
}

/** What all measurements share. */
interface Bench {
  instance: Instance;
  env: NodeJS.ProcessEnv;
  project: string;
  samples: number;
  /** Runs a program and gives its output; throws a Failure with the end of its errors. */
  run: (file: string, ...args: string[]) => string;
  /** Options of docker run for the container that spawn-worker makes. */
  flags: string[];
  /** The same for the engine's API. */
  spec: Docker.ContainerCreateOptions;
}

async function measureAll(
  instance: Instance,
  env: NodeJS.ProcessEnv,
  directory: string,
  samples: number,
): Promise<Measured[]> {
  const project = join(directory, "projects", "app");
  const spec = await specOfWorker(instance, project);
  const bench: Bench = {
    instance,
    env,
    project,
    samples,
    run: (file, ...args) => runWith(env, file, args),
    flags: dockerFlags(instance, spec),
    spec,
  };
  return [
    ...await measureCold(bench),
    ...await measureWarm(bench),
    await measureClaims(bench),
    ...await measurePrompts({ ...bench, claudy: script("claudy") }),
    await measureReady(bench),
  ];
}

const script = (name: string) => join(checkout, "scripts", `${name}.ts`);

function runWith(env: NodeJS.ProcessEnv, file: string, args: string[]): string {
  const { status, stdout, stderr } = spawnSync(file, args, {
    env,
    encoding: "utf8",
  });
  if (status === 0) return stdout.trim();
  throw new Failure(
    "failed",
    `Cannot time ${basename(file)} ${args[0] ?? ""}: exit code ${status}`,
    { hint: stderr.trim().split("\n").slice(-5).join("\n") },
  );
}

/** The container of a worker, as the engine was asked for it. */
async function specOfWorker(
  instance: Instance,
  project: string,
): Promise<Docker.ContainerCreateOptions> {
  const { docker } = instance;
  const model = await spawnWorker(
    instance,
    // With a name, its Claude home is kept for the containers that use the same mounts.
    { directory: project, cwd: "/", name: "model" },
    () => {},
  );
  const { Config, HostConfig } = await docker.getContainer(model.id).inspect();
  await removeContainer(docker, model.id);
  return { ...Config, Hostname: "", HostConfig };
}

function dockerFlags(
  { names }: Instance,
  { User, Labels, Image, HostConfig = {} }: Docker.ContainerCreateOptions,
): string[] {
  return [
    "--init",
    `--network=container:${names.net}`,
    `--user=${User}`,
    `--memory=${HostConfig.Memory}`,
    `--memory-swap=${HostConfig.MemorySwap}`,
    `--cpus=${(HostConfig.NanoCpus ?? 0) / 1e9}`,
    `--pids-limit=${HostConfig.PidsLimit}`,
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    ...Object.entries(Labels ?? {}).map(([key, value]) =>
      `--label=${key}=${value}`
    ),
    ...(HostConfig.Mounts ?? []).map(mountFlag),
    Image ?? "",
  ];
}

/** Times `make`, which gives the id of a container, and removes that. */
async function timedWorker(
  { instance }: Bench,
  make: () => string | Promise<string>,
): Promise<number> {
  const startedAt = performance.now();
  const id = await make();
  const ms = performance.now() - startedAt;
  await removeContainer(instance.docker, id);
  return ms;
}

const dockerRun = ({ run, flags }: Bench) =>
  run("docker", "run", "--detach", ...flags);

const spawnCommand = ({ run, project }: Bench, option: string) =>
  run(script("spawn-worker"), "--detach", option, project);

async function measureCold(bench: Bench): Promise<Measured[]> {
  const { instance, samples, run, spec, project } = bench;
  const { docker } = instance;
  const raw = async () => {
    const created = await createContainer(docker, "", spec);
    await created.start();
    return created.id;
  };
  const library = async () => {
    const request = { directory: project, cwd: "/" };
    return (await spawnWorker(instance, request, () => {})).id;
  };
  const stopping = async (stop: (id: string) => unknown) => {
    const id = dockerRun(bench);
    const ms = await timed(() => stop(id));
    await removeContainer(docker, id);
    return ms;
  };
  await interleaved(1, { warmUp: () => timedWorker(bench, library) });
  const cold = await interleaved(samples, {
    library: () => timedWorker(bench, library),
    raw: () => timedWorker(bench, raw),
    whole: () => timedWorker(bench, () => spawnCommand(bench, "--cold")),
    run: () => timedWorker(bench, () => dockerRun(bench)),
    stop: () => stopping((id) => run(script("coordinator"), "stop", id)),
    dockerStop: () => stopping((id) => run("docker", "stop", id)),
    list: () => timed(() => run(script("coordinator"), "list")),
    ps: () => timed(() => run("docker", "ps")),
  });
  return [
    row(
      "cold spawn, in the library",
      cold.library,
      "raw create + start",
      cold.raw,
    ),
    row("cold spawn, whole process", cold.whole, "docker run -d", cold.run),
    row("stop, whole process", cold.stop, "docker stop", cold.dockerStop),
    row("list, whole process", cold.list, "docker ps", cold.ps),
  ];
}

function startPool({ run, samples }: Bench): void {
  const size = Math.min(samples, 10);
  const sizes = [`--min-warm=${size}`, `--max-warm=${size}`];
  run(script("pool-manager"), "start", ...sizes);
}

async function measureWarm(bench: Bench): Promise<Measured[]> {
  const { instance, samples, run } = bench;
  startPool(bench);
  const worker = async (make: () => string) => {
    await askPool(instance, { op: "warm" });
    return await timedWorker(bench, make);
  };
  const used = (id: string) => {
    run("docker", "exec", id, "sh", "-c", "cd /workspace && pwd");
    return id;
  };
  const warm = await interleaved(samples, {
    whole: () => worker(() => spawnCommand(bench, "--warm-only")),
    cold: () => worker(() => spawnCommand(bench, "--cold")),
    run: () => worker(() => dockerRun(bench)),
    first: () => worker(() => used(spawnCommand(bench, "--warm-only"))),
    runFirst: () => worker(() => used(dockerRun(bench))),
  });
  const name = "warm claim, whole process";
  return [
    row(name, warm.whole, "docker run -d", warm.run),
    row(name, warm.whole, "cold, whole process", warm.cold),
    row(
      "warm, to the first command",
      warm.first,
      "docker run, docker exec",
      warm.runFirst,
    ),
  ];
}

/** Times claims alone, as the manager does. It has to be running. */
async function measureClaims(bench: Bench): Promise<Measured> {
  const { instance, samples, run, project } = bench;
  const { docker, settings, home } = instance;
  // A new manager, which counts only these claims.
  run(script("pool-manager"), "stop");
  startPool(bench);
  const request = claimRequest(settings, { directory: project, cwd: "/" });
  const claimed = samples * 10;
  for (let count = 0; count < claimed; count++) {
    await askPool({ home }, { op: "warm" });
    const reply = await claim({ home }, request);
    if (reply.start === "cold") throw new Failure("failed", reply.reason);
    await removeContainer(docker, reply.worker.id);
  }
  const { latencyMs } = (await poolStatus({ home })).metrics;
  return {
    name: "warm claim, in the manager",
    floor: null,
    samples: claimed,
    medianMs: latencyMs.p50 ?? 0,
    p95Ms: latencyMs.p95 ?? 0,
    p99Ms: latencyMs.p99 ?? 0,
    floorMedianMs: null,
    ratio: null,
  };
}

async function measureReady(
  { instance, env, samples, run }: Bench,
): Promise<Measured> {
  run(script("pool-manager"), "stop");
  const { parent } = await interleaved(samples, {
    parent: async () => {
      const { phases } = await restartDaemon(instance, env, () => {});
      return phases.reduce((sum, { ms }) => sum + ms, 0);
    },
  });
  return row("parent ready", parent, null, []);
}

if (import.meta.main) await execute(main);
