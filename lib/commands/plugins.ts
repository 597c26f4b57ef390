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

/** Marketplaces of the host's directories are copied: workers do not see those. */
const local = `${insideWorker.plugins}/local`;

/** Readable by whoever a worker's user is, and written by nobody in a worker. */
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

/** Its words are the CLI's. */
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
      // As they were typed: its options are not ours.
      const words = cli.rawArgs.slice(2);
      if (words.length === 0) {
        throw new Failure("usage", "plugin needs a word of the CLI's", {
          hint: "See claudy plugin -- --help.",
        });
      }
      return await runPluginCommand(io, words);
    });
  return cli;
}

/** In a container that may write the volume. */
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
    // The volume's root is root's; nothing else of root's is needed, but to read
    // what is another's.
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

/** The directory that is to be a marketplace, undefined for anything else. */
function localMarketplace([noun, verb, source]: string[]): string | undefined {
  const adds = noun === "marketplace" && verb === "add" && source !== undefined;
  return adds && existsSync(source) ? source : undefined;
}
