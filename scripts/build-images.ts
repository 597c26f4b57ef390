#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// build-images: builds the parent, worker and net images that are out of date.

import { openHome } from "../lib/instance/open.ts";
import { ensureHome } from "../lib/instance/volumes.ts";
import { ensureEngine } from "../lib/machine/engine.ts";
import { buildImages, type BuiltImage } from "../lib/image/build.ts";
import { buildPlaces } from "../lib/image/places.ts";
import { selectRecipes } from "../lib/image/recipes.ts";
import { megabytes } from "../lib/std/units.ts";
import { isInstalled } from "../lib/std/checkout.ts";
import { command, execute, runCli, version } from "../lib/cli/cli.ts";
import { engineConsent } from "../lib/cli/options.ts";
import { Io } from "../lib/cli/io.ts";
import { Steps } from "../lib/cli/steps.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("hal9000-build-images");

  cli.command("", "Build the images that are out of date")
    .option("--only <name>", "Build only this image and its base images")
    .option("--no-cache", "Do not use the build cache")
    .option("--json", "Print names, ids and sizes as JSON")
    .action(async (options) => {
      selectRecipes(options.only); // reject a wrong name early
      const step = new Steps(io).run;
      const engine = await ensureEngine(
        io.env,
        io.log,
        engineConsent(io),
      );
      const instance = await openHome(io.env, io.log);
      if (isInstalled) ensureHome(instance);
      const images = await buildImages(
        instance.docker,
        engine.arch,
        {
          places: buildPlaces(instance.home),
          repository: instance.settings.HAL9000_IMAGE_REPO,
          version,
          only: options.only,
          noCache: options.cache === false,
        },
        step,
      );
      io.answer(images, sizes(images), options.json);
    });

  return await runCli(cli, argv, io);
}

function sizes(images: BuiltImage[]): string {
  return images.map(({ tags, sizeBytes, originalBytes }) => {
    const original = originalBytes === null
      ? ""
      : `  (original ${megabytes(originalBytes)})`;
    return `${tags[0]}  ${megabytes(sizeBytes)}${original}`;
  }).join("\n");
}

if (import.meta.main) await execute(main);
