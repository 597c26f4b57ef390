// Builds one layer of a profile and tests it.

import { tmpdir } from "node:os";
import { join } from "node:path";
import { $ } from "zx/core";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { hardenedFlags } from "../instance/container-spec.ts";
import { label } from "../instance/labels.ts";
import type { DevcontainerReview } from "../project/devcontainer-files.ts";
import { type Log, loggedSteps } from "../std/log.ts";
import { seccompOptions } from "./seccomp.ts";
import { baseImage, profilesBase } from "./base.ts";
import { runBuild } from "./build.ts";

/** An image that is built on another. */
export interface Layer {
  tag: string;
  /** The build context with the Dockerfile. */
  context: string;
  dockerfile: string;
  args: Record<string, string>;
  /** True if the image is specific to this instance. */
  own: boolean;
  labels?: Record<string, string>;
  /** Only for a devcontainer: what the image below the worker is built from. */
  review?: DevcontainerReview;
}

/** Builds and tests an image; returns its id. The image has no name yet. */
export async function buildLayer(
  instance: Instance,
  layer: Layer,
  { below, inputs }: { below: string; inputs: string },
  log: Log,
): Promise<string> {
  const { docker, prefix } = instance;
  const { Architecture } = await docker.info();
  const arch = { x86_64: "amd64", aarch64: "arm64" }[Architecture as string];
  const base = await baseImage(docker, profilesBase, {
    arch: arch ?? Architecture,
    directory: tmpdir(),
  }, loggedSteps(log));
  const args = { BASE_IMAGE: base.name, WORKER_IMAGE: below, ...layer.args };
  const labels = {
    [label.inputs]: inputs,
    ...(layer.own ? { [label.instance]: prefix } : {}),
    ...layer.labels,
  };
  const id = await runBuild(
    docker,
    { directory: layer.context },
    [
      `--file=${join(layer.context, layer.dockerfile)}`,
      ...Object.entries(args).map(([key, value]) =>
        `--build-arg=${key}=${value}`
      ),
      ...Object.entries(labels).map(([key, value]) =>
        `--label=${key}=${value}`
      ),
    ],
    instance.home.buildLog(layer.tag),
    log,
  );
  await smokeTest(instance, id, log);
  return id;
}

/** The test for all images, in addition to the image's own test. */
const everyWorker = "claude --version && tmux -V && test -x " +
  "/usr/local/bin/claude-session && test -w /home/claude/.claude";

const maxOutputBytes = 64 * 1024;

/** The timeout of the test. */
const smokeSeconds = 60;

/** Throws a Failure with the output if the test fails. */
async function smokeTest(
  instance: Instance,
  id: string,
  log: Log,
): Promise<void> {
  const { docker } = instance;
  const { Config } = await docker.getImage(id).inspect();
  const own = Config.Labels?.[label.smoke];
  const script = own ? `{ ${everyWorker}; } && { ${own}; }` : everyWorker;
  const test = await runHardened(instance, id, script, log);
  if (test.exitCode === 0) return;
  const said = test.output.trim().split("\n").slice(-5);
  throw new Failure(
    "failed",
    // timeout(1)
    test.exitCode === 124
      ? `Its smoke test did not finish within ${smokeSeconds} s`
      : `Its smoke test failed with exit code ${test.exitCode}: ${
        said.join("; ")
      }`,
  );
}

/**
 * Runs a shell script in a new image, without rights and without a network. The container
 * exits and is removed by itself, even if this process is killed. A hostile image may print
 * without end: the engine keeps no output, and only the beginning is returned.
 */
export async function runHardened(
  instance: Instance,
  image: string,
  script: string,
  log: Log,
): Promise<{ exitCode: number | null; output: string }> {
  const hardened = hardenedFlags(instance);
  const seccomp = await seccompOptions(instance, log);
  // zx runs it with pipefail. cat prevents that the client ends before the container.
  const { exitCode, stdout } = await $({
    nothrow: true,
    quiet: true,
  })`docker run --rm --init --log-driver=none ${hardened} --network=none ${seccomp} --memory=2g --pids-limit=200 --user=65534:65534 --entrypoint=timeout ${image} ${smokeSeconds} sh -c ${script} 2>&1 | { head -c ${maxOutputBytes}; cat >/dev/null; }`;
  return { exitCode, output: stdout };
}
