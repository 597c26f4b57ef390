// up: sets up this machine and starts a worker on a project.

import { homedir } from "node:os";
import { quote } from "zx/core";
import { ensureEngine } from "../machine/engine.ts";
import { buildImages } from "../image/build.ts";
import { buildPlaces } from "../image/places.ts";
import { projectImage } from "../image/profiles.ts";
import { inheritRequest } from "../home/host-config.ts";
import { openInstance } from "../instance/open.ts";
import { resolveProject } from "../project/project.ts";
import { ensureSample } from "../machine/sample.ts";
import { spawnOnce } from "../session/spawn-once.ts";
import type { Log } from "../std/log.ts";
import { Failure } from "../std/errors.ts";
import { duration } from "../std/units.ts";
import { ensureHome, ensureStorage } from "../instance/volumes.ts";
import { checkout, programOf } from "../std/checkout.ts";
import type { CAC } from "cac";
import { command, version } from "../cli/cli.ts";
import { bringUp } from "./daemon.ts";
import type { Io } from "../cli/io.ts";
import { askDevcontainer, repositoryConsent } from "./trust.ts";
import {
  profileChoice,
  trustImageOption,
  worktreeOption,
} from "./start-options.ts";

/** `name` is the command's own: it is also a script. */
export function upCommand(name: string, io: Io): CAC {
  const cli = command(name);

  cli.command("[project]", "Set everything up and start a worker on a project")
    .option("--allow-worktree", worktreeOption)
    .option(...trustImageOption)
    .action(async (
      project: string | undefined,
      options: { allowWorktree?: boolean; trustProject?: boolean },
    ) => {
      if (checkout === "/") {
        throw new Failure("usage", "The parent cannot set up the machine", {
          hint: "Run this on the host.",
        });
      }
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
      ensureHome(instance); // the build uses it
      await phase(
        io.log,
        "Images",
        () =>
          buildImages(instance.docker, engine.arch, {
            places: buildPlaces(instance.home),
            repository: instance.settings.HAL9000_IMAGE_REPO,
            version,
            only: undefined,
            noCache: false,
          }, io.log),
      );
      const image = await phase(
        io.log,
        "Profile",
        () =>
          projectImage(
            instance,
            resolved.path,
            profileChoice({}, askDevcontainer(io, options.trustProject)),
            io.log,
          ),
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
      const script = (name: string) => quote(programOf(name));
      io.log(`Up after ${duration(performance.now() - startedAt)}`);
      io.answer(
        worker,
        [
          `Worker ${worker.name} runs on ${worker.project}`,
          "",
          `Open Claude in it:  ${script("claudy")} ${quote(worker.project)}`,
          `List the workers:   ${script("coordinator")} list`,
          `Stop this worker:   ${script("coordinator")} stop ${worker.name}`,
        ].join("\n"),
        false,
      );
    });

  return cli;
}

/** A phase that takes less time is not worth a line. */
const shortMs = 1000;

async function phase<T>(
  log: Log,
  name: string,
  run: () => Promise<T>,
): Promise<T> {
  const startedAt = performance.now();
  const begun = setTimeout(() => log(`${name} ...`), shortMs);
  const result = await run().finally(() => clearTimeout(begun));
  const tookMs = performance.now() - startedAt;
  if (tookMs >= shortMs) log(`${name}: ${duration(tookMs)}`);
  return result;
}
