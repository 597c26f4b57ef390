// Builds one layer of a profile, and tries it.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createContainer, removeContainer } from "../docker.ts";
import { Failure } from "../errors.ts";
import type { Instance } from "../instance.ts";
import { label, roleLabels } from "../labels.ts";
import type { Log } from "../log.ts";
import { withoutFrames } from "../streams.ts";
import { baseImage } from "./base.ts";
import { runBuild } from "./build.ts";
import type { Layer } from "./profiles.ts";

/** Gives the id of an image that has no name yet, and works. */
export async function buildLayer(
  instance: Instance,
  layer: Layer,
  below: string,
  inputs: string,
  log: Log,
): Promise<string> {
  const { docker, prefix } = instance;
  const directory = mkdtempSync(join(tmpdir(), "hal9000-build-"));
  try {
    const { Architecture } = await docker.info();
    const arch = { x86_64: "amd64", aarch64: "arm64" }[Architecture as string];
    const base = await baseImage(docker, arch ?? Architecture, directory, log);
    const args = { BASE_IMAGE: base.name, WORKER_IMAGE: below, ...layer.args };
    const labels = {
      [label.inputs]: inputs,
      ...(layer.own ? { [label.instance]: prefix } : {}),
    };
    const idFile = join(directory, "id");
    await runBuild(layer.context, [
      `--file=${join(layer.context, layer.dockerfile)}`,
      `--iidfile=${idFile}`,
      ...Object.entries(args).map(([key, value]) =>
        `--build-arg=${key}=${value}`
      ),
      ...Object.entries(labels).map(([key, value]) =>
        `--label=${key}=${value}`
      ),
    ]);
    const id = readFileSync(idFile, "utf8").trim();
    await smokeTest(instance, id);
    return id;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** What a session needs of any image, before what the image says of itself. */
const everyWorker = "claude --version && tmux -V && test -x " +
  "/usr/local/bin/claude-session && test -w /home/claude/.claude";

/** Throws a Failure with what was printed, and takes the image's place away. */
async function smokeTest(
  { docker, prefix }: Instance,
  id: string,
): Promise<void> {
  const { Config } = await docker.getImage(id).inspect();
  const own = Config.Labels?.[label.smoke];
  const script = own ? `{ ${everyWorker}; } && { ${own}; }` : everyWorker;
  const name = `${prefix}-helper-${crypto.randomUUID().slice(0, 8)}`;
  try {
    const container = await createContainer(docker, name, {
      Image: id,
      Entrypoint: ["sh", "-c"],
      Cmd: [script],
      User: "65534:65534",
      Labels: roleLabels(prefix, "helper"),
      HostConfig: {
        NetworkMode: "none",
        CapDrop: ["ALL"],
        SecurityOpt: ["no-new-privileges"],
      },
    });
    await container.start();
    const { StatusCode } = await container.wait();
    if (StatusCode === 0) return;
    const log = await container.logs({ stdout: true, stderr: true, tail: 5 });
    const said = new TextDecoder().decode(withoutFrames(log)).trim();
    throw new Failure(
      "failed",
      `Its smoke test failed with ${StatusCode}: ${said || script}`,
    );
  } finally {
    await removeContainer(docker, name);
  }
}
