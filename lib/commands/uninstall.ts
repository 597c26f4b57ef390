// claudy uninstall: removes an instance from the engine and from the user's home.

import { existsSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import type { CAC } from "cac";
import { quote } from "zx/core";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import {
  disposableFiles,
  findInstalled,
  removeData,
  removeInstalled,
} from "../doctor/uninstall.ts";
import type { UninstallPlan } from "../doctor/uninstall-plan.ts";
import type { Instance } from "../instance/instance.ts";
import { endpointOf } from "../docker/endpoint.ts";
import { refuseWhileMoving } from "../instance/migration-journal.ts";
import { openInstance } from "../instance/open.ts";
import { checkClean, refuseUnrelated } from "../instance/storage.ts";
import { engineStopCommand, forgetEngine } from "../machine/engine.ts";
import { samplePath } from "../machine/sample.ts";
import { checkout, installationPrefix, isInstalled } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import { columns } from "../std/text.ts";
import { liveWorkers } from "../worker/workers.ts";

interface Options {
  data?: boolean;
  force?: boolean;
  dryRun?: boolean;
  yes?: boolean;
  json?: boolean;
}

export function uninstallCommand(io: Io): CAC {
  const cli = command("claudy uninstall");
  cli.command(
    "",
    "Remove containers, images and files, after asking; keep data",
  )
    .option("--data", "Also delete the data: volumes and HAL9000_HOME")
    .option("--force", "Stop running workers without asking")
    .option("--dry-run", "Only show what would be removed")
    .option(
      "--yes",
      "Do not ask (with --data, not before deleting data either)",
    )
    .option("--json", "Print what was removed as JSON")
    .action(async (options: Options) => {
      const instance = await openInstance(io.env, io.log);
      if (instance.self) {
        throw new Failure("usage", "The parent cannot uninstall itself", {
          hint: "Run this on the host.",
        });
      }
      refuseWhileMoving(instance);
      if (options.data) {
        await checkClean(instance);
        refuseUnrelated(instance.home);
      }
      const plan = await findInstalled(instance);
      const files = disposableFiles(instance, homeDirectory(io.env), io.env);
      const removal = removalOf(instance, files, plan, options);
      if (options.dryRun) {
        return io.answer(removal, textOf(removal), options.json);
      }
      const count = Object.values(removal).flat().length;
      if (count > 0) await ask(io, instance, removal, options);
      const kept = await removeInstalled(instance, files, io.log);
      if (options.data) await removeData(instance);
      await tellOfEngine(io, plan);
      io.answer(removal, summary(removal), options.json);
      tellOfRest(io, instance, removal);
      if (kept.length === 0) return;
      throw new Failure("partial", kept.join("; "), {
        hint: "Remove what uses them, then run it again: claudy uninstall",
      });
    });
  return cli;
}

/** What an uninstall removes, as in --json. */
interface Removal {
  containers: string[];
  images: string[];
  /** Ids of images without a name. */
  untagged: string[];
  volumes: string[];
  files: string[];
}

function removalOf(
  instance: Instance,
  files: string[],
  { containers, images, untagged, volumes }: UninstallPlan,
  { data = false }: Options,
): Removal {
  const { home } = instance;
  return {
    containers,
    images,
    untagged,
    volumes: data ? volumes : [],
    files: data && existsSync(home.home)
      ? [...files.filter((path) => path !== home.build), home.home]
      : files,
  };
}

const homeDirectory = (env: NodeJS.ProcessEnv) => env["HOME"] || homedir();

function textOf(
  { containers, images, untagged, volumes, files }: Removal,
): string {
  const rows = [
    ...containers.map((name) => ["container", name]),
    ...images.map((name) => ["image", name]),
    ...untagged.map((id) => ["image", id]),
    ...volumes.map((name) => ["volume", name]),
    ...files.map((path) => ["file", path]),
  ];
  return rows.length === 0 ? "Nothing to remove" : columns(rows);
}

function summary(
  { containers, images, untagged, volumes, files }: Removal,
): string {
  const parts = [
    counted(containers.length, "container"),
    counted(images.length + untagged.length, "image"),
    counted(volumes.length, "volume"),
    ...files,
  ].filter(Boolean);
  return parts.length === 0
    ? "Nothing to remove"
    : `Removed ${parts.join(", ")}`;
}

function counted(count: number, noun: string): string {
  return count === 0 ? "" : `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Asks what has to be asked; throws an `unsafe` Failure without a confirmation. */
async function ask(
  io: Io,
  instance: Instance,
  removal: Removal,
  { data, force, yes }: Options,
): Promise<void> {
  const live = await liveWorkers(instance);
  if (live.length > 0 && !force) {
    const names = live.join(", ");
    if (!io.isInteractive) {
      throw new Failure("unsafe", `Workers are running: ${names}`, {
        hint: "Stop them first (claudy stop --all), or pass --force.",
      });
    }
    await io.confirm(
      `Workers are running, and what they do now will be lost. Stop ${names}?`,
    );
  }
  if (!yes) io.log(textOf(removal));
  await io.confirm("Remove all of this?", yes);
  if (!data) return;
  // A second time, since it cannot be restored.
  await io.confirm(
    `Delete ${instance.home.home} with all conversations, secrets, profiles, memory bank ` +
      `and backups, and the volumes ${removal.volumes.join(", ")}?`,
    yes,
  );
}

async function tellOfEngine(io: Io, { others }: UninstallPlan): Promise<void> {
  if (others.length > 0) {
    io.log(`Base images are kept for ${others.join(", ")}`);
    return;
  }
  const isLocal = endpointOf(io.env).from === "default";
  const stop = isLocal ? engineStopCommand() : undefined;
  if (stop === undefined) return;
  io.log(
    `HAL-9000 has started the Docker engine, which keeps running. Stop it: ${stop}`,
  );
  io.log("Remove it: sudo apt-get purge docker.io");
  await forgetEngine();
}

/** Says what was kept, and how to remove it. */
function tellOfRest(io: Io, { home }: Instance, { files }: Removal): void {
  if (existsSync(home.home) && !files.includes(home.home)) {
    io.log(`Data is kept in ${home.home}. Delete it: claudy uninstall --data`);
  }
  const sample = samplePath(homeDirectory(io.env));
  if (existsSync(sample)) {
    io.log(`The sample project is kept, since you have used it: ${sample}`);
  }
  io.log(`Remove the program: ${programRemoval()}`);
}

function programRemoval(): string {
  if (!isInstalled) return `rm -r ${quote(realpathSync(checkout))}`;
  const prefix = installationPrefix();
  return prefix === undefined
    ? "npm uninstall hal-9000-dind"
    : `npm uninstall --global --prefix ${quote(prefix)} hal-9000-dind`;
}
