#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// build: bundles the scripts, to run them elsewhere or to start them faster.

import { basename, join } from "node:path";
import { bundleScripts, scriptSources } from "../lib/machine/bundle.ts";
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
    .action(async (options: { fast?: boolean }) => {
      const split = options.fast ?? false;
      const directory = join(checkout, "build", split ? "fast" : "scripts");
      const sources = await scriptSources(checkout, { relocatable: split });
      await bundleScripts(checkout, sources, directory, { split });
      const names = sources.map((source) => `${basename(source, ".ts")}.js`);
      io.answer(names, names.join("\n"), false);
    });

  return await runCli(cli, argv, io);
}

if (import.meta.main) await execute(main);
