// Checks of the engine and of the machine that it runs on.

import { existsSync, statfsSync } from "node:fs";
import { inspectImage } from "../docker/docker.ts";
import { cliFailure, cliVersion } from "../docker/docker-cli.ts";
import {
  apiFailure,
  engineInfo,
  hasBuildKit,
  kindOfEngine,
  limitsHint,
  missingLimits,
} from "../docker/engine-info.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import { devcontainers } from "../image/profiles.ts";
import { selectRecipes, workerImage } from "../image/recipes.ts";
import type { Instance } from "../instance/instance.ts";
import { readTrial } from "../image/seccomp.ts";
import {
  type PromisedMemory,
  promisedMemory,
  promisedText,
} from "../worker/promised-memory.ts";
import { binarySize, megabytes, span } from "../std/units.ts";
import { fail, type Finding, ok, warn } from "./findings.ts";

/** An engine that takes longer counts as unavailable. */
const engineMs = 5000;

export async function examineEngine(
  { docker }: Pick<Instance, "docker">,
): Promise<Finding> {
  let version;
  try {
    // The cheapest call that supports a timeout.
    await docker.listContainers({
      limit: 1,
      abortSignal: AbortSignal.timeout(engineMs),
    });
    version = await docker.version();
  } catch (error) {
    const { message, hint } = engineFailure(error, "no engine answers");
    return fail(message, hint ?? "claudy up");
  }
  const failure = apiFailure(version);
  if (failure) return fail(failure.message, failure.hint ?? "claudy upgrade");
  const { Version, ApiVersion } = version;
  const engine = await engineInfo(docker);
  const kind = kindOfEngine(engine, await hasBuildKit(docker));
  const says = `${Version}, API ${ApiVersion}, ${kind}`;
  const missing = missingLimits(engine);
  return missing === undefined
    ? ok(says)
    : warn(`${says}; it cannot limit ${missing} of containers`, limitsHint);
}

/** The docker command, which is run for builds, logs and commands in workers. */
export async function examineCli(
  { docker }: Pick<Instance, "docker">,
  env: NodeJS.ProcessEnv,
): Promise<Finding> {
  const cli = await cliVersion(env);
  if (!cli) {
    return warn("there is no docker command", "apt-get install docker.io");
  }
  const failure = cliFailure(cli, await docker.version(), env);
  return failure
    ? fail(failure.message, failure.hint ?? "docker version")
    : ok(`docker ${cli.version}, API ${cli.api}`);
}

/** The workers' seccomp profile; see SECURITY.md. */
export function examineSeccomp(instance: Instance): Finding {
  const { settings, home } = instance;
  if (settings.WORKER_SECCOMP === "engine") {
    return warn(
      "workers use the engine's default profile: they can create set-uid files",
      "remove WORKER_SECCOMP=engine",
    );
  }
  const trial = readTrial(instance);
  if (!trial) return ok("not tested yet: the next worker start tests it");
  return trial.fault === null
    ? ok("workers cannot create set-uid files")
    : warn(
      `workers use the engine's default profile (${trial.fault})`,
      `rm ${home.seccompTrial} && claudy daemon start`,
    );
}

const lowDiskBytes = 2e9;
const minDiskBytes = 200e6;

export function examineDisk({ home }: Pick<Instance, "home">): Finding {
  const path = existsSync(home.home) ? home.home : "/";
  const { bavail, bsize } = statfsSync(path);
  const free = bavail * bsize;
  const says = `${binarySize(free)} free at ${path}`;
  if (free < minDiskBytes) {
    return fail(says, "claudy prune, or free disk space");
  }
  return free < lowDiskBytes ? warn(says, "free disk space") : ok(says);
}

export async function examineMemory(instance: Instance): Promise<Finding> {
  const promised = await promisedMemory(instance);
  const { limits } = await engineInfo(instance.docker);
  if (!limits.memory) {
    const { engineBytes } = promised;
    return ok(`${binarySize(engineBytes)} on the engine, without limits`);
  }
  return judgeMemory(promised, instance.settings.WORKER_MEMORY);
}

export function judgeMemory(promised: PromisedMemory, each: number): Finding {
  const { engineBytes, promisedBytes } = promised;
  const says = `${binarySize(engineBytes)} on the engine, ${
    binarySize(each)
  } at most for a worker`;
  if (each > engineBytes) {
    return warn(says, "set WORKER_MEMORY in config/hal9000.conf");
  }
  return promisedBytes <= engineBytes ? ok(says) : warn(
    `${
      promisedText(promised)
    }: if all is used up, a worker's process is killed`,
    "stop sessions that you do not need, or set a lower WORKER_MEMORY for " +
      "new ones in config/hal9000.conf",
  );
}

/** A wrong clock makes ages and expiry times wrong. */
const maxSkewMs = 5000;

export async function examineClock(
  { docker }: Pick<Instance, "docker">,
): Promise<Finding> {
  const { SystemTime } = await docker.info();
  const skew = Math.abs(Date.now() - Date.parse(SystemTime));
  return skew < maxSkewMs
    ? ok("same as the engine's")
    : warn(`${span(skew)} off the engine's`, "set the clock");
}

export async function examineImages(
  instance: Pick<Instance, "docker" | "settings" | "prefix">,
): Promise<Finding> {
  const { docker, settings } = instance;
  const repository = settings.HAL9000_IMAGE_REPO;
  const wanted = [workerImage(settings), `${repository}:parent`];
  const ages: string[] = [];
  for (const name of wanted) {
    const image = await inspectImage(docker, name);
    if (!image) return fail(`${name} is missing`, "claudy up");
    ages.push(span(Date.now() - Date.parse(image.Created)));
  }
  const known = selectRecipes(undefined).length;
  const built = await devcontainers(instance);
  const bytes = built.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const more = built.length > 0
    ? `; of devcontainers: ${built.length}, ${megabytes(bytes)}`
    : "";
  return ok(
    `${wanted.length} of ${known} in use, built ${ages[0]} ago${more}`,
  );
}
