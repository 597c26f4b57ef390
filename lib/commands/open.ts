// claudy [directory]: opens the session of a project.

import type { CAC } from "cac";
import { claudeArguments, command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import type { OpenOptions } from "./open-project.ts";
import {
  addCopyOptions,
  addMcpChoice,
  addPermissionOptions,
  addProfileOptions,
  cachesOption,
  limitsOption,
  networkOption,
  trustOption,
  unguardedOption,
  worktreeOption,
} from "./start-options.ts";

/** `names` are those of the other commands. */
export function openCommand(io: Io, names: string[]): CAC {
  const cli = command("claudy");
  const opening = cli.command(
    "[directory] [...others]",
    "Open the session of a project (default: here)",
  );
  addCopyOptions(
    addPermissionOptions(
      addMcpChoice(addProfileOptions(opening, "auto")),
      "the session's last one, else PERMISSION_MODES, else Claude's own",
    ),
    "Work in a copy of the project, on a branch of its own; see claudy fetch",
  )
    .usage(`[options] [directory] ${claudeArguments}`)
    .option(
      "-n, --name <name>",
      "Name of the session, if the project has several",
    )
    .option("-d, --detach", "Start it without attaching")
    .option("-s, --shell", "Attach to a shell in its worker")
    .option("--new", "Start a new conversation")
    .option(
      "--on <host>",
      "Work on another machine, in a copy of the project there; see claudy host",
    )
    .option("--via-parent", "No effect (this is the default)")
    .option("--legacy", "One container without a parent; deprecated")
    .option(
      "--claude-home <dir>",
      "Claude settings for a new session to inherit (default: CLAUDE_HOME or ~/.claude)",
    )
    .option(
      "--inherit-hooks",
      "Also inherit hooks, which then run in the worker",
    )
    .option("--ssh-agent", "Give the session access to your ssh-agent")
    .option("--setup", "Choose how sessions sign in")
    .option("--api-key <key>", "Rejected: ps and shell history would show it")
    .option("--verify", "Same as claudy doctor")
    .option("--diagnose", "Same as claudy doctor")
    .option("--allow-any-path", "Mount system directories and HAL9000_HOME too")
    .option(...limitsOption)
    .option(...networkOption)
    .option(...cachesOption)
    .option(...trustOption)
    .option("--allow-worktree", worktreeOption)
    .option(...unguardedOption)
    .option("--yes", "Start the daemon without asking")
    .option("--json", "With --detach: print session and worker as JSON")
    .example("claudy ~/code/app")
    .example("claudy -d --name review . -- --model opus")
    .example('claudy run "explain this project"')
    .example("claudy sessions --waiting")
    .action(async (
      directory: unknown,
      others: string[],
      options: OpenOptions,
    ) => {
      if (options.on !== undefined) {
        const { openOnHost } = await import("./elsewhere.ts");
        return await openOnHost(io, {
          directory: String(directory ?? "."),
          others,
          options,
        });
      }
      const { openProject } = await import("./open-project.ts");
      return await openProject(io, {
        directory: directory === undefined ? undefined : String(directory),
        others,
        options,
        commands: names,
      });
    });
  return cli;
}
