#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// up: from whatever this machine has to a worker that runs on a project.

import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { quote } from "zx/core";
import { ensureEngine } from "../lib/machine/engine.ts";
import { buildImages } from "../lib/image/build.ts";
import { projectImage } from "../lib/image/profiles.ts";
import { inheritRequest } from "../lib/home/inherit.ts";
import { openInstance } from "../lib/instance/open.ts";
import { logToStderr } from "../lib/std/log.ts";
import { resolveProject } from "../lib/project/project.ts";
import { ensureSample } from "../lib/machine/sample.ts";
import { spawnOnce } from "../lib/worker/spawn.ts";
import { duration } from "../lib/std/units.ts";
import { ensureStorage } from "../lib/instance/volumes.ts";
import { checkout } from "../lib/std/checkout.ts";
import { command, runCli, version } from "../lib/cli/cli.ts";
import { bringUp } from "../lib/commands/daemon.ts";
import { worktreeOption } from "../lib/cli/options.ts";
import { answer } from "../lib/cli/output.ts";
import { repositoryConsent } from "../lib/commands/trust.ts";
import { profileWish } from "../lib/commands/profiles.ts";

const cli = command("up");

cli.command("[project]", "Set everything up and start a worker on a project")
  .option("--allow-worktree", worktreeOption)
  .action(async (
    project: string | undefined,
    options: { allowWorktree?: boolean },
  ) => {
    const startedAt = performance.now();
    const { env } = process;
    const engine = await phase(
      "Engine",
      () => ensureEngine(env, logToStderr),
    );
    const instance = await openInstance(env, logToStderr);
    const request = {
      directory: project || ensureSample(homedir()),
      cwd: process.cwd(),
      repository: repositoryConsent(options.allowWorktree),
      inherit: inheritRequest(instance, env),
    };
    // A wrong directory is told before minutes of building, not after.
    const { path } = await resolveProject(instance, {
      path: request.directory,
      cwd: request.cwd,
      as: "project",
      allowAny: false,
    });
    await phase("Images", () =>
      buildImages(instance.docker, engine.arch, {
        root: checkout,
        repository: instance.settings.HAL9000_IMAGE_REPO,
        version,
        only: undefined,
        noCache: false,
      }, logToStderr));
    const image = await phase(
      "Profile",
      () => projectImage(instance, path, profileWish({}), logToStderr),
    );
    await phase("Volumes", () => ensureStorage(instance));
    await phase("Parent", () => bringUp(instance));
    const worker = await phase(
      "Worker",
      () => spawnOnce(instance, { ...request, image: image.name }, logToStderr),
    );
    const script = (name: string) => quote(join(checkout, "scripts", name));
    logToStderr(`Up after ${duration(performance.now() - startedAt)}`);
    answer(
      worker,
      [
        `Worker ${worker.name} runs on ${worker.project}`,
        `  Claude: ${script("claudy.ts")} ${quote(worker.project)}`,
        `  list:   ${script("coordinator.ts")} list`,
        `  stop:   ${script("coordinator.ts")} stop ${worker.name}`,
      ].join("\n"),
      false,
    );
  });

await runCli(cli);

async function phase<T>(name: string, run: () => Promise<T>): Promise<T> {
  logToStderr(`${name} ...`);
  const startedAt = performance.now();
  const result = await run();
  logToStderr(`${name}: ${duration(performance.now() - startedAt)}`);
  return result;
}
