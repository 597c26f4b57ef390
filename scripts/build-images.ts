#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// build-images: the parent, worker and net images, where they are not current.

import process from "node:process";
import { readSettings } from "../lib/instance/config.ts";
import { connect } from "../lib/docker/docker.ts";
import { ensureEngine } from "../lib/machine/engine.ts";
import { buildImages, type BuiltImage } from "../lib/image/build.ts";
import { selectRecipes } from "../lib/image/recipes.ts";
import { logToStderr } from "../lib/std/log.ts";
import { megabytes } from "../lib/std/units.ts";
import { checkout } from "../lib/std/checkout.ts";
import { command, runCli, version } from "../lib/cli/cli.ts";
import { answer } from "../lib/cli/output.ts";

const cli = command("build-images");

cli.command("", "Build the images that are not current")
  .option("--only <name>", "Build one image, and what it is built on")
  .option("--no-cache", "Build anew, without the engine's cache")
  .option("--json", "Print names, ids and sizes as JSON")
  .action(async (options) => {
    selectRecipes(options.only); // a wrong name is told before work begins
    const engine = await ensureEngine(process.env, logToStderr);
    const images = await buildImages(
      await connect(process.env),
      engine.arch,
      {
        root: checkout,
        repository: readSettings(process.env).HAL9000_IMAGE_REPO,
        version,
        only: options.only,
        noCache: options.cache === false,
      },
      logToStderr,
    );
    answer(images, sizes(images), options.json);
  });

await runCli(cli);

function sizes(images: BuiltImage[]): string {
  return images.map(({ tags, sizeBytes, originalBytes }) => {
    const original = originalBytes === null
      ? ""
      : `  (original ${megabytes(originalBytes)})`;
    return `${tags[0]}  ${megabytes(sizeBytes)}${original}`;
  }).join("\n");
}
