// claudy plugin: plugins that all sessions share, installed once by the CLI.

import { existsSync } from "node:fs";
import type { CAC } from "cac";
import { runDocker } from "../docker/docker-cli.ts";
import { Failure } from "../std/errors.ts";
import { workerImage } from "../image/recipes.ts";
import { openInstance } from "../instance/open.ts";
import { hardenedFlags } from "../instance/container-spec.ts";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { resolveProject, sessionName } from "../project/project.ts";
import { seccompOptions } from "../image/seccomp.ts";
import { ensureStorage } from "../instance/volumes.ts";
import { insideWorker } from "../instance/paths.ts";

/**
 * Marketplaces of host directories are copied, since workers cannot see these
 * directories.
 */
const local = `${insideWorker.plugins}/local`;

/** The files are readable by any user of a worker, and writable by none. */
const script = `umask 022
if [ -n "$MARKETPLACE" ]; then
  rm -rf "${local}/$MARKETPLACE"
  mkdir -p ${local}
  cp -R ${insideWorker.workspace} "${local}/$MARKETPLACE" || exit
  set -- marketplace add "${local}/$MARKETPLACE"
fi
claude plugin "$@"
code=$?
chmod -R a+rX ${insideWorker.plugins}
exit $code`;

/** Passes all its arguments to the CLI. */
export function pluginCommand(io: Io): CAC {
  const cli = command("claudy plugin");
  cli.command(
    "[...words]",
    "Run the CLI's plugin command for all sessions",
  )
    .allowUnknownOptions()
    .example("claudy plugin marketplace add https://github.com/owner/plugins")
    .example("claudy plugin install formatter@plugins")
    .action(async () => {
      // As typed, including options.
      const words = cli.rawArgs.slice(2);
      if (words.length === 0) {
        throw new Failure(
          "usage",
          "Missing arguments for the CLI's plugin command",
          {
            hint: "See claudy plugin -- --help.",
          },
        );
      }
      return await runPluginCommand(io, words);
    });
  return cli;
}

/** Runs the CLI in a container that can write to the volume. */
async function runPluginCommand(io: Io, words: string[]): Promise<number> {
  const instance = await openInstance(io.env, io.log);
  await ensureStorage(instance);
  const { names, settings } = instance;
  const directory = localMarketplace(words);
  const market = directory === undefined
    ? undefined
    : await resolveProject(instance, {
      path: directory,
      cwd: io.cwd(),
      as: "marketplace",
      allowAny: false,
    });
  return await runDocker([
    "run",
    "--rm",
    "--interactive",
    ...(io.isInteractive ? ["--tty"] : []),
    ...hardenedFlags(instance),
    // The volume belongs to root. The only other right needed is to read files of
    // other users.
    "--user=0:0",
    "--cap-add=DAC_READ_SEARCH",
    ...await seccompOptions(instance, io.log),
    `--mount=type=volume,source=${names.volumes.plugins},target=${insideWorker.plugins}`,
    `--env=CLAUDE_CONFIG_DIR=${insideWorker.plugins}`,
    ...(market
      ? [
        `--mount=type=bind,source=${market.path},target=${insideWorker.workspace},readonly`,
        `--env=MARKETPLACE=${sessionName(market.path)}`,
      ]
      : []),
    workerImage(settings),
    "sh",
    "-c",
    script,
    "sh",
    ...(words[0] === "--" ? words.slice(1) : words),
  ]);
}

/** The directory to add as a marketplace, if the command adds one. */
function localMarketplace([noun, verb, source]: string[]): string | undefined {
  const adds = noun === "marketplace" && verb === "add" && source !== undefined;
  return adds && existsSync(source) ? source : undefined;
}
