#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// claudy: the front door for people: sessions, the daemon, the pool, settings.

import process from "node:process";
import {
  confPath,
  explainSettings,
  settingFaults,
} from "../lib/instance/config.ts";
import { Failure } from "../lib/std/errors.ts";
import { inheritRequest } from "../lib/home/inherit.ts";
import { openInstance } from "../lib/instance/open.ts";
import { logToStderr } from "../lib/std/log.ts";
import { didYouMean } from "../lib/std/nearest.ts";
import { readySession, startSession } from "../lib/session/session.ts";
import { columns } from "../lib/std/text.ts";
import { command, type Groups, runCli } from "../lib/cli/cli.ts";
import {
  completionScript,
  type Places,
  shells,
} from "../lib/cli/completion.ts";
import {
  addDaemon,
  daemonActions,
  offerDaemon,
} from "../lib/commands/daemon.ts";
import { showDashboard } from "../lib/commands/dashboard.ts";
import {
  addLogin,
  refuseKeyAsArgument,
  secretActionNames,
  setUp,
} from "../lib/commands/login.ts";
import {
  action,
  refuseWithoutTerminal,
  worktreeOption,
} from "../lib/cli/options.ts";
import {
  addPoolOptions,
  checkPoolOptions,
  poolActions,
  type PoolOptions,
} from "../lib/commands/pool.ts";
import { addDoctor, examineAll } from "../lib/commands/doctor.ts";
import { answer } from "../lib/cli/output.ts";
import { repositoryConsent } from "../lib/commands/trust.ts";
import { addRun } from "../lib/commands/run.ts";
import { addMcp, mcpActionNames } from "../lib/commands/mcp.ts";
import {
  addMcpChoice,
  type McpChoice,
  mcpChoice,
} from "../lib/commands/mcp-choice.ts";
import { addPlugins } from "../lib/commands/plugins.ts";
import { addPorts, portActions } from "../lib/commands/ports.ts";
import {
  addProfileOptions,
  addProfiles,
  profileActions,
  type ProfileOptions,
  profileWish,
} from "../lib/commands/profiles.ts";
import { addPrune } from "../lib/commands/prune.ts";
import {
  addSessions,
  sessionActions,
  showSession,
} from "../lib/commands/sessions.ts";
import { approveConfig, trustOption } from "../lib/commands/trust.ts";
import { addWatch } from "../lib/commands/watch.ts";

const groups: Groups = [
  ["Sessions", [
    "",
    "attach",
    "stop",
    "sessions",
    "logs",
    "watch",
    "ports",
    "run",
  ]],
  ["Credentials", ["login", "logout", "secret"]],
  ["Machine", [
    "daemon",
    "pool",
    "dashboard",
    "config",
    "profile",
    "plugin",
    "mcp",
    "doctor",
    "prune",
  ]],
  ["Shell", ["completion"]],
];

const cli = command("claudy", groups);
const { env } = process;

interface OpenOptions extends ProfileOptions, McpChoice {
  name?: string;
  detach?: boolean;
  shell?: boolean;
  new?: boolean;
  legacy?: boolean;
  claudeHome?: unknown;
  inheritHooks?: boolean;
  sshAgent?: boolean;
  setup?: boolean;
  apiKey?: unknown;
  verify?: boolean;
  diagnose?: boolean;
  allowAnyPath?: boolean;
  trustProject?: boolean;
  allowWorktree?: boolean;
  yes?: boolean;
  json?: boolean;
  "--"?: string[];
}

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
  .action(openProject);

addLogin(cli);
addSessions(cli);
addWatch(cli);
addPorts(cli);

addRun(cli);
addDaemon(cli);

cli.command("dashboard", "Show workers, their use and a prompt, in tmux")
  .action(async () => {
    refuseWithoutTerminal("Run it at one.");
    return await showDashboard(await openInstance(env, logToStderr), env);
  });

addPoolOptions(
  cli.command(
    "pool <action> [argument]",
    `${Object.keys(poolActions).join(", ")} of the warm workers`,
  ),
).action(
  async (name: string, argument: unknown, options: PoolOptions) => {
    const act = action("pool", poolActions, name);
    const text = argument === undefined ? undefined : String(argument);
    checkPoolOptions(name, act, options, text);
    await act.run(options, text);
  },
);

const configActions = {
  show: (json: boolean) => {
    const settings = explainSettings(env, { warn: logToStderr });
    const rows = settings.map(({ key, text, place }) => [key, text, place]);
    const text = columns([["SETTING", "VALUE", "FROM"], ...rows]);
    answer(settings, text, json);
  },
  path: (json: boolean) => answer({ path: confPath(env) }, confPath(env), json),
  check: (json: boolean) => {
    const faults = settingFaults(env);
    answer(faults, faults.join("\n") || "No fault", json);
    return faults.length === 0 ? 0 : 2;
  },
};

cli.command("config <action>", "show, path or check of the settings")
  .option("--json", "Print it as JSON")
  .action((name: string, options: { json?: boolean }) =>
    action("config", configActions, name)(options.json ?? false)
  );

addDoctor(cli);
addPrune(cli);
addProfiles(cli);
addPlugins(cli);
addMcp(cli);

cli.command("completion <shell>", `Completion for ${shells.join(", ")}`)
  .example("source <(claudy completion bash)")
  .action((shell: string) => {
    const script = completionScript(cli, places, shell);
    if (script === undefined) {
      throw new Failure("usage", `There is no completion for "${shell}"`, {
        hint: `There is: ${shells.join(", ")}.`,
      });
    }
    answer(null, script.trimEnd(), false);
  });

/** What the first argument of a command may be. */
const places: Places = {
  attach: "sessions",
  stop: "sessions",
  logs: "sessions",
  sessions: Object.keys(sessionActions),
  ports: Object.keys(portActions),
  daemon: Object.keys(daemonActions),
  pool: Object.keys(poolActions),
  secret: secretActionNames,
  config: Object.keys(configActions),
  profile: Object.keys(profileActions),
  mcp: mcpActionNames,
  completion: shells,
};

await runCli(cli);

async function openProject(
  directory: string | undefined,
  options: OpenOptions,
): Promise<number | undefined> {
  refuseKeyAsArgument(options.apiKey);
  if (options.setup) return await setUp();
  if (options.verify || options.diagnose) return await examineAll(options);
  if (options.json && !options.detach) {
    throw new Failure("usage", "--json needs --detach");
  }
  if (!options.detach) refuseWithoutTerminal("Start it with --detach.");
  if (options.legacy) {
    logToStderr(
      "warning: --legacy is deprecated: the container has no ChromaDB and " +
        "no pool. See scripts/migrate.ts for the way from it.",
    );
  }
  const instance = await openInstance(env, logToStderr);
  if (!options.legacy) await offerDaemon(instance, options.yes ?? false);
  const ready = await readySession(instance, {
    directory: directory ?? ".",
    cwd: process.cwd(),
    name: options.name,
    standalone: options.legacy ?? false,
    allowAnyPath: options.allowAnyPath ?? false,
    repository: repositoryConsent(options.allowWorktree),
    fresh: options.new ?? false,
    inherit: inheritRequest(instance, env, options),
    sshAgent: options.sshAgent ? agentSocket() : undefined,
    profile: profileWish(options),
    mcp: mcpChoice(options),
    claudeArguments: options["--"] ?? [],
    approveConfig: approveConfig(options.trustProject, options.detach),
    env,
  }, logToStderr).catch((error) => {
    throw meantAsCommand(error, directory);
  });
  const { session, project, worker, id, start } = ready;
  if (options.detach) {
    const conversation = await startSession(instance, ready);
    const opened = { session, project, worker, id, conversation, start };
    answer(opened, session, options.json ?? false);
    return;
  }
  if (options.shell) await startSession(instance, ready);
  const code = await showSession(
    instance,
    { name: worker, id },
    options.shell ? { what: "shell" } : { what: "session", ...ready },
  );
  if (code === 0) logToStderr(`Again: claudy attach ${session}`);
  return code;
}

function agentSocket(): string {
  const socket = env["SSH_AUTH_SOCK"];
  if (socket) return socket;
  throw new Failure(
    "notFound",
    "There is no ssh-agent: SSH_AUTH_SOCK is not set",
    {
      hint: "Start one: eval $(ssh-agent); ssh-add",
    },
  );
}

/** A directory that is not there may be a command that was mistyped. */
function meantAsCommand(error: unknown, directory: string | undefined) {
  const plain = directory !== undefined && /^[a-z]+$/.test(directory);
  if (!(error instanceof Failure) || error.kind !== "notFound" || !plain) {
    return error;
  }
  const names = cli.commands.map(({ name }) => name).filter(Boolean);
  const hint = didYouMean(directory, names).trim();
  return new Failure(error.kind, error.message, {
    hint: hint || error.hint,
    cause: error,
  });
}
