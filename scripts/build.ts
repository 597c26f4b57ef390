#!/usr/bin/env -S sh -c 'exec "$(dirname "$(readlink -f "$0")")"/launch "$0" "$@"'
// build: bundles each script into one file under build/scripts.

import { join } from "node:path";
import { bundleScripts, scriptNames } from "../lib/bundle.ts";
import { checkout, command, runCli } from "./cli.ts";
import { answer } from "./output.ts";

const cli = command("build");

cli.command("", "Bundle every script into build/scripts/<name>.js")
  .action(async () => {
    const directory = join(checkout, "build", "scripts");
    const names = await scriptNames(checkout);
    await bundleScripts(checkout, names, directory);
    answer(names, names.map((name) => `${name}.js`).join("\n"), false);
  });

await runCli(cli);
