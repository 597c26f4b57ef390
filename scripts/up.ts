#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// up: sets up this machine and starts a worker on a project.

import { homedir } from "node:os";
import { join } from "node:path";
import { quote } from "zx/core";
import { ensureEngine } from "../lib/machine/engine.ts";
import { buildImages } from "../lib/image/build.ts";
import { projectImage } from "../lib/image/profiles.ts";
import { inheritRequest } from "../lib/home/inherit.ts";
import { openInstance } from "../lib/instance/open.ts";
import { resolveProject } from "../lib/project/project.ts";
import { ensureSample } from "../lib/machine/sample.ts";
import { spawnOnce } from "../lib/session/spawn-once.ts";
import type { Log } from "../lib/std/log.ts";
import { duration } from "../lib/std/units.ts";
import { ensureStorage } from "../lib/instance/volumes.ts";
import { checkout } from "../lib/std/checkout.ts";
import { command, execute, runCli, version } from "../lib/cli/cli.ts";
import { bringUp } from "../lib/commands/daemon.ts";
import { Io } from "../lib/cli/io.ts";
import { repositoryConsent } from "../lib/commands/trust.ts";
import {
  profileChoice,
  worktreeOption,
} from "../lib/commands/start-options.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("up");

  cli.command("[project]", "Set everything up and start a worker on a project")
    .option("--allow-worktree", worktreeOption)
    .action(async (
      project: string | undefined,
      options: { allowWorktree?: boolean },
    ) => {
      const startedAt = performance.now();
      const { env } = io;
      const engine = await phase(
        io.log,
        "Engine",
        () => ensureEngine(env, io.log),
      );
      const instance = await openInstance(env, io.log);
      // A wrong directory is refused before minutes of building, not after.
      const resolved = await resolveProject(instance, {
        path: project || ensureSample(homedir()),
        cwd: io.cwd(),
        as: "project",
        allowAny: false,
      });
      await phase(
        io.log,
        "Images",
        () =>
          buildImages(instance.docker, engine.arch, {
            root: checkout,
            repository: instance.settings.HAL9000_IMAGE_REPO,
            version,
            only: undefined,
            noCache: false,
          }, io.log),
      );
      const image = await phase(
        io.log,
        "Profile",
        () => projectImage(instance, resolved.path, profileChoice({}), io.log),
      );
      await phase(io.log, "Volumes", () => ensureStorage(instance));
      await phase(io.log, "Parent", () => bringUp(io, instance));
      const worker = await phase(
        io.log,
        "Worker",
        () =>
          spawnOnce(instance, {
            project: resolved,
            image: image.name,
            repository: repositoryConsent(io, options.allowWorktree),
            inherit: inheritRequest(instance, env),
          }, io.log),
      );
      const script = (name: string) => quote(join(checkout, "scripts", name));
      io.log(`Up after ${duration(performance.now() - startedAt)}`);
      io.answer(
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

  return await runCli(cli, argv, io);
}

async function phase<T>(
  log: Log,
  name: string,
  run: () => Promise<T>,
): Promise<T> {
  log(`${name} ...`);
  const startedAt = performance.now();
  const result = await run();
  log(`${name}: ${duration(performance.now() - startedAt)}`);
  return result;
}

if (import.meta.main) await execute(main);
