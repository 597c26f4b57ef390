#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// build: bundles the scripts, to run them elsewhere or to start them faster.

import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  bundleChromadb,
  bundleInstalled,
  bundleScripts,
  imageSources,
  scriptSources,
} from "../lib/machine/bundle.ts";
import {
  imagePackages,
  packageDirectory,
  readLockfile,
} from "../lib/image/packages.ts";
import { clonePlaces } from "../lib/image/places.ts";
import { checkout } from "../lib/std/checkout.ts";
import { command, execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("build");

  cli.command("", "Bundle every script into build/scripts/<name>.js")
    .option(
      "--fast",
      "Bundle for the launcher, into build/fast",
    )
    .option("--package", "Bundle for the npm package, into dist")
    .action(async (options: { fast?: boolean; package?: boolean }) => {
      if (options.package) return await buildPackage();
      const split = options.fast ?? false;
      const directory = join(checkout, "build", split ? "fast" : "scripts");
      const sources = await scriptSources(checkout, { relocatable: split });
      await bundleScripts(checkout, sources, directory, { split });
      const names = sources.map((source) => `${basename(source, ".ts")}.js`);
      io.answer(names, names.join("\n"), false);
    });

  return await runCli(cli, argv, io);
}

/** Builds what an installed package runs and copies into images, see places.ts. */
async function buildPackage(): Promise<void> {
  const { work, lockfile } = clonePlaces(checkout);
  await mkdir(work, { recursive: true });
  const staged = await mkdtemp(join(work, "package-"));
  await bundleInstalled(checkout, join(staged, "bin"));
  await bundleScripts(
    checkout,
    await imageSources(checkout),
    join(staged, "image"),
    { split: true },
  );
  await bundleChromadb(
    packageDirectory(checkout, "chromadb"),
    join(staged, "chroma.mjs"),
  );
  const packages = imagePackages(await readLockfile(lockfile));
  await writeFile(
    join(staged, "packages.json"),
    JSON.stringify(packages, null, 2) + "\n",
  );
  // At once, since another npm pack may read it.
  const dist = join(checkout, "dist");
  await rm(dist, { recursive: true, force: true });
  await rename(staged, dist);
}

if (import.meta.main) await execute(main);
