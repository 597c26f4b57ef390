// Builds the image of a project's devcontainer: what the official CLI makes of it, with the
// Claude CLI and the other parts of a worker on top.

import { randomBytes } from "node:crypto";
import {
  chmod,
  mkdir,
  mkdtemp,
  readFile,
  rm,
  writeFile,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, isAbsolute, join, normalize } from "node:path";
import process from "node:process";
import type { Docker } from "../docker/docker.ts";
import type { Instance } from "../instance/instance.ts";
import { label } from "../instance/labels.ts";
import { insideWorker } from "../instance/paths.ts";
import { isReserved } from "../project/devcontainer.ts";
import {
  type DevcontainerReview,
  staged,
} from "../project/devcontainer-files.ts";
import { checkout } from "../std/checkout.ts";
import { isWithin } from "../std/hostpath.ts";
import { Failure } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { builderEnv, classicArguments, lock, runLogged } from "./build.ts";
import { buildLayer, type Layer, runHardened } from "./profile-build.ts";

type ReviewedLayer = Layer & { review: DevcontainerReview };

/** Builds and tests the image; returns its id. The image has no name yet. */
export async function buildDevcontainer(
  instance: Instance,
  layer: ReviewedLayer,
  from: { below: string; inputs: string },
  log: Log,
): Promise<string> {
  const { docker, home } = instance;
  await mkdir(home.run, { recursive: true });
  const stage = await mkdtemp(join(home.run, "devcontainer-"));
  const tag = `${layer.tag}-${randomBytes(4).toString("hex")}`;
  try {
    await stageFiles(stage, layer.review);
    // One at a time: without BuildKit, the CLI passes features in an image with a fixed name.
    const release = await lock(home.run);
    await runCli(instance, { stage, tag, layer }, log).finally(release);
    const image = await docker.getImage(tag).inspect();
    refuseImage(image);
    const { packages, lfs } = await examine(instance, tag, log);
    const top = join(stage, "worker");
    await mkdir(top);
    const shipped = join(layer.context, layer.dockerfile);
    await writeFile(
      join(top, "Dockerfile"),
      (await readFile(shipped, "utf8")) +
        variableLines({
          ...layer.review.devcontainer.env,
          PATH: searchPath(image.Config.Env ?? []),
        }),
    );
    return await buildLayer(
      instance,
      {
        ...layer,
        context: top,
        dockerfile: "Dockerfile",
        args: { DEVCONTAINER_IMAGE: tag, PACKAGES: packages.join(" ") },
        labels: labelsOf(layer.review, lfs),
      },
      from,
      log,
    );
  } finally {
    // Only the name: the layers are part of the worker's image.
    await docker.getImage(tag).remove({ noprune: true }).catch(() => {});
    await rm(stage, { recursive: true, force: true });
  }
}

/** Writes what was approved: the CLI reads nothing in the project. */
async function stageFiles(
  stage: string,
  { devcontainer, files }: DevcontainerReview,
): Promise<void> {
  const { file, source, features, users } = devcontainer;
  await mkdir(join(stage, staged.context), { recursive: true });
  for (const [name, { bytes, executable }] of files) {
    const path = join(stage, name);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, bytes);
    // Independent of the umask: files keep their modes in the image.
    await chmod(path, executable ? 0o755 : 0o644);
  }
  const up = file.includes("/") ? "../" : "./";
  const config = {
    ...("image" in source ? { image: source.image } : {
      build: {
        dockerfile: up + staged.dockerfile,
        context: up + staged.context,
        args: source.args,
        ...(source.target ? { target: source.target } : {}),
      },
    }),
    features,
    ...users,
  };
  const path = join(stage, file);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, JSON.stringify(config));
}

/** Runs `devcontainer build`, with its output in a log file. */
async function runCli(
  { docker, home }: Pick<Instance, "docker" | "home">,
  { stage, tag, layer }: { stage: string; tag: string; layer: ReviewedLayer },
  log: Log,
): Promise<void> {
  const require = createRequire(join(checkout, "package.json"));
  const temporary = join(stage, "tmp");
  await mkdir(temporary);
  const builder = await builderEnv(docker);
  const script = join(stage, "docker");
  await writeFile(script, dockerScript(classicArguments(builder)), {
    mode: 0o700,
  });
  // The CLI is CommonJS, and its package.json does not say so.
  const flags = [
    "--no-lock",
    "--no-config",
    "--quiet",
    "--unstable-detect-cjs",
  ];
  const deno = ["run", "--allow-all", ...flags];
  const command = [
    process.execPath,
    ...(process.versions["deno"] ? deno : []),
    require.resolve("@devcontainers/cli/devcontainer.js"),
    "build",
    `--workspace-folder=${stage}`,
    `--config=${join(stage, layer.review.devcontainer.file)}`,
    `--image-name=${tag}`,
    `--docker-path=${script}`,
    `--user-data-folder=${join(stage, "data")}`,
    "--no-lockfile",
  ];
  await runLogged(
    (shell) => shell`${command}`,
    {
      what: "devcontainer build",
      cwd: stage,
      env: {
        ...passedVariables(process.env),
        ...builder,
        NO_COLOR: "1",
        // Its working files have a predictable name in this directory.
        TMPDIR: temporary,
      },
      logFile: home.buildLog(`${layer.tag}-cli`),
    },
    log,
  );
}

/** What docker and Deno need: the CLI replaces variables in what a project has written. */
function passedVariables(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const passed = /^(PATH|HOME|LANG|DENO_DIR|DOCKER_\w+|(LC|XDG)_\w+)$/;
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => passed.test(name)),
  );
}

/**
 * The image's PATH, with the directories last that the project's files or another process
 * can change: nobody has approved a program there that is named like one of the worker's.
 */
export function searchPath(env: string[]): string {
  const path = env.find((line) => line.startsWith("PATH=")) ?? "";
  const entries = path.slice("PATH=".length).split(":").filter(isAbsolute);
  const isFixed = (entry: string) =>
    ![insideWorker.workspace, insideWorker.home, "/tmp", "/proc"].some((tree) =>
      isWithin(normalize(entry), tree)
    );
  return [
    ...entries.filter(isFixed),
    ...["/usr/local/bin", "/usr/bin", "/bin"],
    ...entries.filter((entry) => !isFixed(entry)),
  ].filter((entry, at, all) => all.indexOf(entry) === at).join(":");
}

/** A `docker` that builds with these arguments: the CLI has no option for them. */
function dockerScript(buildArguments: string[]): string {
  return `#!/bin/sh
[ "$1" = build ] || exec docker "$@"
shift
exec docker build ${buildArguments.join(" ")} "$@"
`;
}

/** Throws if the image could change what a worker is to the instance, or to Claude. */
export function refuseImage(
  { Config }: Pick<Docker.ImageInspectInfo, "Config">,
): void {
  if (Config.OnBuild?.length) {
    throw new Failure("unsafe", "the image has ONBUILD instructions", {
      hint: "Put them into its own Dockerfile",
    });
  }
  const own = Object.keys(Config.Labels ?? {})
    .find((name) => name.startsWith("hal9000."));
  if (own !== undefined) {
    throw new Failure("unsafe", `the image has the label ${own}`, {
      hint: "Build it from an image that is not one of HAL-9000's",
    });
  }
  const reserved = (Config.Env ?? []).map((line) => line.split("=", 1)[0] ?? "")
    .find((name) =>
      isReserved(name) &&
      !["PATH", "HOME", "SHELL", "NODE_VERSION"].includes(name)
    );
  if (reserved === undefined) return;
  throw new Failure(
    "unsafe",
    `the image sets ${reserved}, which a project must not set`,
  );
}

/** Programs that sessions need, with the packages that have them. */
const programs = {
  bash: "bash",
  git: "git",
  less: "less",
  ps: "procps",
  tmux: "tmux",
};

const maxShownOutput = 500;

const certificates = "/etc/ssl/certs/ca-certificates.crt";

/** Which Debian packages have to be added, and whether the image has git-lfs. */
async function examine(
  instance: Instance,
  image: string,
  log: Log,
): Promise<{ packages: string[]; lfs: boolean }> {
  const script = [
    "ls /lib/ld-musl-* >/dev/null 2>&1 && echo musl",
    ...Object.entries(programs).map(([program, name]) =>
      `command -v ${program} >/dev/null || echo package ${name}`
    ),
    `[ -s ${certificates} ] || echo package ca-certificates`,
    "command -v apt-get >/dev/null && echo apt",
    "command -v git-lfs >/dev/null && echo lfs",
    "echo done",
  ].join("\n");
  const { output } = await runHardened(instance, image, script, log);
  const lines = output.split("\n");
  if (!lines.includes("done")) {
    const last = output.trim().split("\n").at(-1) ?? "";
    const said = last.slice(0, maxShownOutput);
    throw new Failure("failed", `the image has no shell: ${said}`);
  }
  if (lines.includes("musl")) {
    throw new Failure(
      "failed",
      "the image uses musl, like Alpine; the Claude CLI needs glibc",
      { hint: "Build it from Debian or Ubuntu" },
    );
  }
  const packages = lines.filter((line) => line.startsWith("package "))
    .map((line) => line.slice("package ".length));
  if (packages.length > 0 && !lines.includes("apt")) {
    throw new Failure(
      "failed",
      `the image lacks ${packages.join(", ")}, and has no apt-get`,
      { hint: "Install them in its Dockerfile" },
    );
  }
  return { packages, lfs: lines.includes("lfs") };
}

/** https://docs.docker.com/reference/dockerfile/#environment-replacement */
function variableLines(env: Record<string, string>): string {
  return Object.entries(env).map(([key, value]) =>
    `ENV ${key}="${value.replace(/[\\"$]/g, "\\$&")}"\n`
  ).join("");
}

function labelsOf(
  { project, devcontainer }: DevcontainerReview,
  lfs: boolean,
): Record<string, string> {
  return {
    [label.devcontainer]: project,
    [label.pids]: "2048",
    [label.lfs]: String(lfs),
    [label.postCreate]: JSON.stringify(devcontainer.postCreate),
  };
}
