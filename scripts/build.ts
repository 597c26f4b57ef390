#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// build: bundles the scripts, for use elsewhere or for a faster start here.

import { join } from "node:path";
import { bundleScripts, hostOnly, scriptNames } from "../lib/bundle.ts";
import { checkout } from "../lib/checkout.ts";
import { command, runCli } from "./cli.ts";
import { answer } from "./output.ts";

const cli = command("build");

cli.command("", "Bundle every script into build/scripts/<name>.js")
  .option(
    "--fast",
    "What the launcher runs in place of the sources: build/fast",
  )
  .action(async (options: { fast?: boolean }) => {
    const split = options.fast ?? false;
    const directory = join(checkout, "build", split ? "fast" : "scripts");
    const names = (await scriptNames(checkout))
      // They look for the checkout from where they are.
      .filter((name) => !split || !hostOnly.includes(name));
    await bundleScripts(checkout, names, directory, { split });
    answer(names, names.map((name) => `${name}.js`).join("\n"), false);
  });

await runCli(cli);
