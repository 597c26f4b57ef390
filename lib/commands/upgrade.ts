// claudy upgrade: applies this program's version to the instance.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { CAC } from "cac";
import { command, version } from "../cli/cli.ts";
import { Steps } from "../cli/steps.ts";
import type { Io } from "../cli/io.ts";
import { refuseStart } from "../daemon/daemon.ts";
import {
  forgetFormer,
  parentToUpgrade,
  replaceParent,
  type RunningParent,
  useNewImages,
} from "../daemon/upgrade.ts";
import {
  startConfiguredGateway,
  stopGateway,
} from "../gateway/gateway-process.ts";
import { buildImages, lock } from "../image/build.ts";
import { buildPlaces } from "../image/places.ts";
import { nextOf } from "../image/tags.ts";
import type { Instance } from "../instance/instance.ts";
import { instanceFilter, versionLabel } from "../instance/labels.ts";
import { openInstance } from "../instance/open.ts";
import { buildDigest } from "../std/build-digest.ts";
import { checkout } from "../std/checkout.ts";
import { Failure } from "../std/errors.ts";
import { changesBetween, compareVersions } from "../std/version.ts";
import { ensureHome } from "../instance/volumes.ts";
import { listWorkers } from "../worker/workers.ts";

interface Options {
  dryRun?: boolean;
  allowDowngrade?: boolean;
  json?: boolean;
}

interface Upgrade {
  /** The running parent; null if there is none. */
  from: RunningParent | null;
  to: { version: string; build: string };
  /** What was done, one sentence each. */
  done: string[];
  /** Sessions whose worker has a former image until they are opened again. */
  formerImage: string[];
}

export function upgradeCommand(io: Io): CAC {
  const cli = command("claudy upgrade");
  cli.command("", "Apply this program's version to images, parent and services")
    .option("--dry-run", "Only print what is new")
    .option(
      "--allow-downgrade",
      "Also if the parent is newer than this program",
    )
    .option("--json", "Print what was done as JSON")
    .action((options: Options) => upgrade(io, options));
  return cli;
}

async function upgrade(io: Io, options: Options): Promise<void> {
  const instance = await openInstance(io.env, io.log);
  refuseStart(instance);
  ensureHome(instance);
  const release = await lock(instance.home.run);
  try {
    await upgradeInstance(io, instance, options);
  } finally {
    release();
  }
}

async function upgradeInstance(
  io: Io,
  instance: Instance,
  { dryRun, allowDowngrade, json }: Options,
): Promise<void> {
  const { docker, settings } = instance;
  const from = await parentToUpgrade(instance) ?? null;
  const to = { version, build: await buildDigest() };
  if (from) refuseDowngrade(from, allowDowngrade);
  io.log(introduction(from, to));
  if (dryRun) return;
  const { Arch } = await docker.version();
  const steps = new Steps(io);
  await steps.run("Images", () =>
    buildImages(docker, Arch, {
      places: buildPlaces(instance.home),
      repository: nextOf(settings.HAL9000_IMAGE_REPO),
      version,
      only: undefined,
      noCache: false,
    }, steps.run));
  const changed = await useNewImages(instance);
  const done = changed ? ["Images replaced"] : [];
  if (from) done.push(...await replaceServices(io, instance, steps));
  else await forgetFormer(instance);
  const formerImage = await sessionsOfFormerImages(instance);
  const result: Upgrade = { from, to, done, formerImage };
  io.answer(result, summary(result), json);
}

function introduction(
  from: RunningParent | null,
  to: Upgrade["to"],
): string {
  const text = ({ version, build }: RunningParent) =>
    `${version}${build ? ` (build ${build})` : ""}`;
  if (!from) return "There is no parent: only images are replaced";
  if (from.version === to.version && from.build === to.build) {
    return `The parent has this version already: ${text(to)}`;
  }
  const changelog = readFileSync(join(checkout, "CHANGELOG.md"), "utf8");
  const news = changesBetween(changelog, from.version, to.version);
  const heading = `Upgrading from ${text(from)} to ${text(to)}`;
  return news === "" ? heading : `${heading}\n\n${news}\n`;
}

function refuseDowngrade({ version: runs }: RunningParent, allowed = false) {
  if (allowed || (compareVersions(version, runs) ?? 0) >= 0) return;
  throw new Failure(
    "unsafe",
    `The parent has version ${runs}, which is newer than this program's ${version}`,
    {
      hint: "Upgrade the program: npm install -g hal-9000-dind@latest. " +
        "To go back to its version: claudy upgrade --allow-downgrade",
    },
  );
}

/** Returns what was done. */
async function replaceServices(
  { env }: Io,
  instance: Instance,
  { run: step }: Steps,
): Promise<string[]> {
  const done: string[] = [];
  const replaced = await step(
    "Parent",
    (log) => replaceParent(instance, env, log),
  );
  if (replaced) {
    done.push("Parent, nsenter and pool replaced");
    if (await stopGateway(instance)) {
      await step(
        "MCP gateway",
        (log) => startConfiguredGateway(instance, { checkout, env }, log),
      );
      done.push("MCP gateway restarted");
    }
  }
  await forgetFormer(instance);
  return done;
}

/** Sessions with a worker that was created from an image that was replaced. */
async function sessionsOfFormerImages(instance: Instance): Promise<string[]> {
  const { docker, prefix } = instance;
  const containers = await docker.listContainers({
    filters: instanceFilter(prefix, "worker"),
  });
  const former = new Set(
    containers.filter(({ Image, ImageID, Labels }) =>
      // The engine shows the id if the name has another image now.
      Image === ImageID || Labels[versionLabel] !== version
    ).map(({ Id }) => Id),
  );
  const workers = await listWorkers(instance);
  return workers.flatMap(({ id, session }) =>
    session !== null && former.has(id) ? [session] : []
  ).sort();
}

function summary({ done, formerImage }: Upgrade): string {
  const lines = done.length === 0 ? ["Nothing to do"] : done;
  if (formerImage.length === 0) return lines.join("\n");
  return [
    ...lines,
    "These sessions keep their former image until they are stopped and opened again: " +
    formerImage.join(", "),
  ].join("\n");
}
