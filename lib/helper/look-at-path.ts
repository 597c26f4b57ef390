// look-at-path: prints facts about a host path as JSON. Runs in a helper container that
// has the host's file system mounted at /host.

import { lookAt } from "../std/hostpath.ts";
import { hostMount } from "../instance/paths.ts";
import { command, execute, runCli } from "../cli/cli.ts";
import { Io } from "../cli/io.ts";

export async function main(argv: string[], io = new Io()): Promise<number> {
  const cli = command("look-at-path");

  cli.command("<path>", "Print the real path, kind and owner of a host path")
    .action((path: string) => io.answer(look(path), "", true));

  return await runCli(cli, argv, io);
}

function look(path: string): unknown {
  try {
    return lookAt(path, { mount: hostMount, roots: undefined });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return { code: code ?? "EIO", message };
  }
}

if (import.meta.main) await execute(main);
