// Builds one layer of a profile, and tries it.

import { tmpdir } from "node:os";
import { join } from "node:path";
import { $ } from "zx/core";
import { Failure } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { hardenedFlags } from "../instance/container-spec.ts";
import { label } from "../instance/labels.ts";
import type { Log } from "../std/log.ts";
import { seccompOptions } from "./seccomp.ts";
import { baseImage } from "./base.ts";
import { runBuild } from "./build.ts";

/** One image on another. */
export interface Layer {
  tag: string;
  /** What the engine is sent, with the Dockerfile in it. */
  context: string;
  dockerfile: string;
  args: Record<string, string>;
  /** True where only this instance can have one that is made of the same. */
  own: boolean;
}

/** Gives the id of an image that has no name yet, and works. */
export async function buildLayer(
  instance: Instance,
  layer: Layer,
  below: string,
  inputs: string,
  log: Log,
): Promise<string> {
  const { docker, prefix } = instance;
  const { Architecture } = await docker.info();
  const arch = { x86_64: "amd64", aarch64: "arm64" }[Architecture as string];
  const base = await baseImage(docker, arch ?? Architecture, tmpdir(), log);
  const args = { BASE_IMAGE: base.name, WORKER_IMAGE: below, ...layer.args };
  const labels = {
    [label.inputs]: inputs,
    ...(layer.own ? { [label.instance]: prefix } : {}),
  };
  await runBuild(layer.context, [
    `--file=${join(layer.context, layer.dockerfile)}`,
    ...Object.entries(args).map(([key, value]) =>
      `--build-arg=${key}=${value}`
    ),
    ...Object.entries(labels).map(([key, value]) => `--label=${key}=${value}`),
  ]);
  // Found by its label: it has no name yet.
  const [built] = (await docker.listImages({
    filters: { label: [`${label.inputs}=${inputs}`] },
  })).sort((a, b) => b.Created - a.Created);
  if (!built) throw new Failure("failed", "The builder made no image");
  await smokeTest(instance, built.Id, log);
  return built.Id;
}

/** What a session needs of any image, before what the image says of itself. */
const everyWorker = "claude --version && tmux -V && test -x " +
  "/usr/local/bin/claude-session && test -w /home/claude/.claude";

/** A test that takes longer has failed. */
const smokeSeconds = 60;

/**
 * Throws a Failure with what was printed. The container ends and goes by itself,
 * whatever becomes of us.
 */
async function smokeTest(
  instance: Instance,
  id: string,
  log: Log,
): Promise<void> {
  const { docker } = instance;
  const { Config } = await docker.getImage(id).inspect();
  const own = Config.Labels?.[label.smoke];
  const script = own ? `{ ${everyWorker}; } && { ${own}; }` : everyWorker;
  const hardened = hardenedFlags(instance);
  const seccomp = await seccompOptions(instance, log);
  const test = await $({
    nothrow: true,
    quiet: true,
  })`docker run --rm --init ${hardened} --network=none ${seccomp} --memory=2g --pids-limit=200 --user=65534:65534 --entrypoint=timeout ${id} ${smokeSeconds} sh -c ${script}`;
  if (test.exitCode === 0) return;
  const said = `${test.stdout}\n${test.stderr}`.trim().split("\n").slice(-5);
  throw new Failure(
    "failed",
    // timeout(1)
    test.exitCode === 124
      ? `Its smoke test has not ended within ${smokeSeconds} s`
      : `Its smoke test failed with ${test.exitCode}: ${said.join("; ")}`,
  );
}
