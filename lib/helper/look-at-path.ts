// look-at-path: what a path of the host is, as JSON; run by the parent in a
// helper container that has the host below /host.

import { lookAt } from "../std/hostpath.ts";
import { hostMount } from "../instance/paths.ts";
import { command, runCli } from "../cli/cli.ts";
import { answer } from "../cli/output.ts";

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
