// up: sets up this machine and starts a worker on a project.

import { accessSync, constants } from "node:fs";
import { homedir, userInfo } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { $, quote } from "zx/core";
import { credentialFor } from "../home/credentials.ts";
import { ensureEngine, NotYetInGroup } from "../machine/engine.ts";
import { buildImages } from "../image/build.ts";
import { buildPlaces } from "../image/places.ts";
import { projectImage } from "../image/profiles.ts";
import { inheritRequest } from "../home/host-config.ts";
import type { Instance } from "../instance/instance.ts";
import { openInstance } from "../instance/open.ts";
import { resolveProject } from "../project/project.ts";
import { ensureSample } from "../machine/sample.ts";
import { spawnOnce } from "../session/spawn-once.ts";
import type { SpawnedWorker } from "../worker/spawn.ts";
import { Failure } from "../std/errors.ts";
import { megabytes } from "../std/units.ts";
import { ensureHome, ensureStorage } from "../instance/volumes.ts";
import { checkout, programOf } from "../std/checkout.ts";
import type { CAC } from "cac";
import { command, version } from "../cli/cli.ts";
import { bringUp } from "./daemon.ts";
import type { Io } from "../cli/io.ts";
import { engineConsent } from "../cli/options.ts";
import { Steps } from "../cli/steps.ts";
import { setUp } from "./login.ts";
import { openSession } from "./open-project.ts";
import { askDevcontainer, repositoryConsent } from "./trust.ts";
import {
  profileChoice,
  trustImageOption,
  worktreeOption,
} from "./start-options.ts";

interface UpOptions {
  allowWorktree?: boolean;
  trustProject?: boolean;
  detach?: boolean;
}

/** `name` is the command's own: it is also a script. */
export function upCommand(name: string, io: Io): CAC {
  const cli = command(name);

  cli.command("[project]", "Set everything up and start a worker on a project")
    .option("-d, --detach", "Do not offer to log in and to open the session")
    .option("--allow-worktree", worktreeOption)
    .option(...trustImageOption)
    .action(async (project: string | undefined, options: UpOptions) => {
      if (checkout === "/") {
        throw new Failure("usage", "The parent cannot set up the machine", {
          hint: "Run this on the host.",
        });
      }
      return await up(io, project, options);
    });

  return cli;
}

async function up(
  io: Io,
  project: string | undefined,
  options: UpOptions,
): Promise<number | undefined> {
  const startedAt = performance.now();
  const { env } = io;
  const steps = new Steps(io);
  const { run: step } = steps;
  const engine = await step(
    "Engine",
    (log) =>
      ensureEngine(env, log, engineConsent(io)).catch((error) => {
        if (!(error instanceof NotYetInGroup) || env[regrouped]) throw error;
      }),
    (engine) => engine ? `Docker ${engine.version}` : "joining group docker",
  );
  if (!engine) return await upInGroup(project, options);
  const instance = await openInstance(env, io.log);
  // A wrong directory is refused before minutes of building, not after.
  const resolved = await resolveProject(instance, {
    path: project || ensureSample(homedir()),
    cwd: io.cwd(),
    as: "project",
    allowAny: false,
  });
  ensureHome(instance); // the build uses it
  await step(
    "Images",
    () =>
      buildImages(instance.docker, engine.arch, {
        places: buildPlaces(instance.home),
        repository: instance.settings.HAL9000_IMAGE_REPO,
        version,
        only: undefined,
        noCache: false,
      }, step),
    (images) =>
      images.some(({ built }) => built)
        ? megabytes(images.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))
        : "up to date",
  );
  const image = await step(
    "Profile",
    (log) =>
      projectImage(
        instance,
        resolved.path,
        profileChoice({}, askDevcontainer(io, options.trustProject)),
        log,
      ),
  );
  await step("Volumes", () => ensureStorage(instance));
  await step(
    "Parent",
    (log) => bringUp({ env, log }, instance),
    () => instance.names.parent,
  );
  const worker = await step(
    "Worker",
    (log) =>
      spawnOnce(instance, {
        project: resolved,
        image: image.name,
        repository: repositoryConsent(io, options.allowWorktree),
        inherit: inheritRequest(instance, env),
      }, log),
    ({ name }) => name,
  );
  steps.ended("Up", startedAt);
  const isSignedIn = credentialFor(instance, env) !== undefined;
  const text = nextSteps(worker, claudyName(env), { isSignedIn });
  io.log("");
  io.answer(worker, text, false);
  if (env[regrouped]) {
    io.log(
      "\nFor group docker in this shell, log in again, or run: newgrp docker",
    );
  }
  if (options.detach || !io.isInteractive || !io.showsOutput) return undefined;
  return await offerSession(io, instance, worker, isSignedIn);
}

/** What to type next. */
export function nextSteps(
  { name, project }: Pick<SpawnedWorker, "name" | "project">,
  claudy: string,
  { isSignedIn }: { isSignedIn: boolean },
): string {
  return [
    `Worker ${name} runs on ${project}`,
    "",
    ...(isSignedIn ? [] : [`Sign in:            ${claudy} login`]),
    `Open Claude in it:  ${claudy} ${quote(project)}`,
    `Stop this worker:   ${claudy} stop ${name}`,
    `All commands:       ${claudy} --help`,
  ].join("\n");
}

/** How the user can call claudy: by its name if that is on PATH, else by its path. */
export function claudyName(env: NodeJS.ProcessEnv): string {
  for (const directory of (env["PATH"] ?? "").split(delimiter)) {
    try {
      accessSync(join(directory, "claudy"), constants.X_OK);
      return "claudy";
    } catch {
      // not here
    }
  }
  return quote(programOf("claudy"));
}

/** Offers to log in if there is no credential, and opens the session. */
async function offerSession(
  io: Io,
  instance: Instance,
  { project }: SpawnedWorker,
  isSignedIn: boolean,
): Promise<number | undefined> {
  io.log("");
  try {
    const agrees = (question: string) =>
      io.isConfirmed(question, { byDefault: true });
    if (!isSignedIn && await agrees("No credential was found. Sign in now?")) {
      await setUp(io);
    }
    if (!await agrees("Open Claude now?")) return undefined;
  } catch (error) {
    // Everything runs, and the user knows what to type.
    if (error instanceof Failure && error.kind === "unsafe") return undefined;
    throw error;
  }
  return await openSession(io, instance, { directory: project, options: {} });
}

/** Set if this process was started again to be in group docker. */
const regrouped = "HAL9000_REGROUPED";

/** Runs this command again as a member of group docker, which a login would do. */
async function upInGroup(
  project: string | undefined,
  { allowWorktree, trustProject, detach }: UpOptions,
): Promise<number> {
  const words = [
    programOf("claudy"),
    "up",
    ...(allowWorktree ? ["--allow-worktree"] : []),
    ...(trustProject ? ["--trust-project"] : []),
    ...(detach ? ["--detach"] : []),
    ...(project === undefined ? [] : [project]),
  ];
  const run = $({
    stdio: "inherit",
    nothrow: true,
    quiet: true,
    env: { ...process.env, [regrouped]: "1" },
  });
  const { username } = userInfo();
  if ((await $({ quiet: true, nothrow: true })`sudo -n true`).exitCode !== 0) {
    throw new NotYetInGroup();
  }
  // Not with sg, which Debian 13 does not install. sudo replaces PATH.
  const path = `PATH=${process.env["PATH"]}`;
  const { exitCode } =
    await run`sudo --non-interactive --preserve-env --user=${username} env ${path} ${words}`;
  return exitCode ?? 1;
}
