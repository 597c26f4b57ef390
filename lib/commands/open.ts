// claudy [directory]: opens the session of a project.

import type { CAC } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import type { OpenOptions } from "./open-project.ts";
import {
  addMcpChoice,
  addProfileOptions,
  trustOption,
  worktreeOption,
} from "./start-options.ts";

/** `names` are those of the other commands. */
export function openCommand(io: Io, names: string[]): CAC {
  const cli = command("claudy");
  addMcpChoice(addProfileOptions(
    cli.command("[directory]", "Open the session of a project (default: here)"),
    "as its files say",
  ))
    .usage("[options] [directory] [-- arguments of claude...]")
    .option("-n, --name <name>", "One of several sessions of the project")
    .option("-d, --detach", "Start it and do not attach to it")
    .option("-s, --shell", "Attach to a shell in its worker")
    .option("--new", "Begin a new conversation")
    .option("--via-parent", "Accepted; it is what is done")
    .option("--legacy", "One container without a parent; deprecated")
    .option(
      "--claude-home <dir>",
      "Claude settings that a new session inherits (default: CLAUDE_HOME, else ~/.claude)",
    )
    .option("--inherit-hooks", "Hooks too, which run in the worker then")
    .option("--ssh-agent", "Let the session use the keys of your ssh-agent")
    .option("--setup", "Choose what sessions sign in with")
    .option("--api-key <key>", "Refused: ps and history would show it")
    .option("--verify", "As doctor")
    .option("--diagnose", "As doctor")
    .option("--allow-any-path", "Mount system directories and HAL9000_HOME too")
    .option(...trustOption)
    .option("--allow-worktree", worktreeOption)
    .option("--yes", "Start the daemon without asking")
    .option("--json", "With --detach: print session and worker as JSON")
    .example("claudy ~/code/app")
    .example("claudy -d --name review . -- --model opus")
    .example('claudy run -p "explain this project"')
    .example("claudy sessions --waiting")
    .action(async (directory: unknown, options: OpenOptions) => {
      const { openProject } = await import("./open-project.ts");
      return await openProject(io, {
        directory: directory === undefined ? undefined : String(directory),
        options,
        commands: names,
      });
    });
  return cli;
}
