#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// look-at-path: what a path of the host is, as JSON; run by the parent in a
// helper container that has the host below /host.

import { lookAt } from "../lib/hostpath.ts";
import { hostMount } from "../lib/paths.ts";
import { command, runCli } from "./cli.ts";
import { answer } from "./output.ts";

const cli = command("look-at-path");

cli.command("<path>", "Print real path, kind and owner of a host's path")
  .action((path: string) => answer(look(path), "", true));

await runCli(cli);

function look(path: string): unknown {
  try {
    return lookAt(path, { mount: hostMount, roots: undefined });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { code: code ?? "EIO", message };
  }
}
