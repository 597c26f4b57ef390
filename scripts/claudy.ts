#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "${s%/*}/launch" "$s" "$@"'
// claudy: the main command: sessions, the daemon, the pool, settings.

import type { CAC } from "cac";
import { execute, runCli } from "../lib/cli/cli.ts";
import { Io } from "../lib/cli/io.ts";
import { openCommand } from "../lib/commands/open.ts";

interface Subcommand {
  group: string;
  meaning: string;
  /** Arguments to show in help. */
  takes?: string;
  /** Loads only the command's own module. */
  load: () => Promise<(io: Io) => CAC>;
}

const sessions = () => import("../lib/commands/sessions.ts");
const attach = () => import("../lib/commands/attach.ts");
const changes = () => import("../lib/commands/session-changes.ts");
const copies = () => import("../lib/commands/copies.ts");
const login = () => import("../lib/commands/login.ts");

/** In the order of the help text. */
const subcommands: Record<string, Subcommand> = {
  attach: {
    group: "Sessions",
    takes: "[name]",
    meaning: "Attach to a session, or resume it (default: the one here)",
    load: async () => (await attach()).attachCommand,
  },
  stop: {
    group: "Sessions",
    takes: "[...names]",
    meaning: "Stop sessions and keep their conversations",
    load: async () => (await import("../lib/commands/stop.ts")).stopCommand,
  },
  exec: {
    group: "Sessions",
    takes: "[name] -- <command>",
    meaning: "Run a command in the worker of a session",
    load: async () => (await attach()).execCommand,
  },
  send: {
    group: "Sessions",
    takes: "<name> [...text]",
    meaning: "Send a prompt to a running session",
    load: async () => (await import("../lib/commands/send.ts")).sendCommand,
  },
  rename: {
    group: "Sessions",
    takes: "<name> <new_name>",
    meaning: "Rename a stopped session",
    load: async () => (await changes()).renameCommand,
  },
  move: {
    group: "Sessions",
    takes: "<name> <directory>",
    meaning: "Continue a session where its project was moved to",
    load: async () => (await changes()).moveCommand,
  },
  sessions: {
    group: "Sessions",
    takes: "[action] [name]",
    meaning: "list (default), show, rm or sync",
    load: async () => (await sessions()).sessionsCommand,
  },
  fork: {
    group: "Sessions",
    takes: "[name]",
    meaning: "Open sessions that begin where another one is",
    load: async () => (await import("../lib/commands/fork.ts")).forkCommand,
  },
  fetch: {
    group: "Sessions",
    takes: "[name]",
    meaning: "Fetch the commits of a session that works in a copy",
    load: async () => (await copies()).fetchCommand,
  },
  diff: {
    group: "Sessions",
    takes: "[name]",
    meaning: "Show what a session has changed in its copy",
    load: async () => (await copies()).diffCommand,
  },
  merge: {
    group: "Sessions",
    takes: "<name>",
    meaning: "Fetch from a session's copy and merge its branch",
    load: async () => (await copies()).mergeCommand,
  },
  compare: {
    group: "Sessions",
    takes: "<...names>",
    meaning: "Compare what sessions have changed in their copies",
    load: async () =>
      (await import("../lib/commands/compare.ts")).compareCommand,
  },
  pick: {
    group: "Sessions",
    takes: "<name>",
    meaning: "Merge one of several forks",
    load: async () => (await import("../lib/commands/pick.ts")).pickCommand,
  },
  pull: {
    group: "Sessions",
    takes: "<name>",
    meaning: "Bring your new commits into a session's copy",
    load: async () => (await copies()).pullCommand,
  },
  logs: {
    group: "Sessions",
    takes: "[name]",
    meaning: "Print the conversation of a session, or its worker's log",
    load: async () => (await import("../lib/commands/logs.ts")).logsCommand,
  },
  watch: {
    group: "Sessions",
    meaning: "Print state changes of sessions as they happen",
    load: async () => (await import("../lib/commands/watch.ts")).watchCommand,
  },
  ports: {
    group: "Sessions",
    takes: "[action] [port] [host_port]",
    meaning: "list listening ports (default), or open one on this host",
    load: async () => (await import("../lib/commands/ports.ts")).portsCommand,
  },
  egress: {
    group: "Sessions",
    takes: "[action] [...hosts]",
    meaning:
      "show (default), allow, deny, preset, log or check of hosts that isolated workers can reach",
    load: async () => (await import("../lib/commands/egress.ts")).egressCommand,
  },
  usage: {
    group: "Sessions",
    meaning: "Show what sessions used of the API, and the account's limits",
    load: async () => (await import("../lib/commands/usage.ts")).usageCommand,
  },
  budget: {
    group: "Sessions",
    takes: "[action] [name]",
    meaning: "show (default), set or rm budgets; release a paused session",
    load: async () => (await import("../lib/commands/usage.ts")).budgetCommand,
  },
  run: {
    group: "Sessions",
    takes: "<prompt>",
    meaning: "Run one prompt in a new worker and print the answer",
    load: async () => (await import("../lib/commands/run.ts")).runCommand,
  },
  login: {
    group: "Credentials",
    meaning:
      "Save the credentials of all sessions (default: log in with the CLI)",
    load: async () => (await login()).loginCommand,
  },
  logout: {
    group: "Credentials",
    meaning: "Delete the saved credentials",
    load: async () => (await login()).logoutCommand,
  },
  secret: {
    group: "Credentials",
    takes: "<action> [name]",
    meaning: "set, list or rm of secrets that sessions get as files",
    load: async () => (await import("../lib/commands/secret.ts")).secretCommand,
  },
  up: {
    group: "Machine",
    takes: "[project]",
    meaning: "Set everything up and start a worker on a project",
    load: async () => {
      const { upCommand } = await import("../lib/commands/up.ts");
      return (io) => upCommand("claudy up", io);
    },
  },
  upgrade: {
    group: "Machine",
    meaning: "Apply this program's version to images, parent and services",
    load: async () =>
      (await import("../lib/commands/upgrade.ts")).upgradeCommand,
  },
  daemon: {
    group: "Machine",
    takes: "<action>",
    meaning: "start, stop, restart, status or logs of the parent",
    load: async () => (await import("../lib/commands/daemon.ts")).daemonCommand,
  },
  pool: {
    group: "Machine",
    takes: "<action> [argument]",
    meaning:
      "start, stop, status, scale, cleanup, drain, warm or claim of the warm workers",
    load: async () => {
      const { poolCommand } = await import("../lib/commands/pool.ts");
      return (io) => poolCommand("claudy pool", io);
    },
  },
  dashboard: {
    group: "Machine",
    meaning: "Show all sessions, open them, answer their requests",
    load: async () =>
      (await import("../lib/commands/dashboard.ts")).dashboardCommand,
  },
  config: {
    group: "Machine",
    takes: "<action>",
    meaning: "show, path or check of the settings",
    load: async () => (await import("../lib/commands/config.ts")).configCommand,
  },
  profile: {
    group: "Machine",
    takes: "<action> [name]",
    meaning: "list or build of workers' profiles",
    load: async () =>
      (await import("../lib/commands/profiles.ts")).profileCommand,
  },
  host: {
    group: "Machine",
    takes: "[action] [name]",
    meaning: "list (default), add, rm, check, install or run of other machines",
    load: async () => (await import("../lib/commands/hosts.ts")).hostCommand,
  },
  images: {
    group: "Machine",
    takes: "<action> <file>",
    meaning: "save the images to a file, or load them from one",
    load: async () => (await import("../lib/commands/images.ts")).imagesCommand,
  },
  plugin: {
    group: "Machine",
    takes: "[...words]",
    meaning: "Run the CLI's plugin command for all sessions",
    load: async () =>
      (await import("../lib/commands/plugins.ts")).pluginCommand,
  },
  mcp: {
    group: "Machine",
    takes: "<action> [server]",
    meaning:
      "start, stop, restart, status, logs, list, add, remove or doctor of the host's MCP servers",
    load: async () => {
      const { mcpCommand } = await import("../lib/commands/mcp.ts");
      return (io) => mcpCommand("claudy mcp", io);
    },
  },
  doctor: {
    group: "Machine",
    meaning: "Check the installation and suggest fixes",
    load: async () => (await import("../lib/commands/doctor.ts")).doctorCommand,
  },
  prune: {
    group: "Machine",
    meaning:
      "Remove old logs, records, homes, backups and images, after asking",
    load: async () => (await import("../lib/commands/prune.ts")).pruneCommand,
  },
  uninstall: {
    group: "Machine",
    meaning: "Remove containers, images and, if asked, data",
    load: async () =>
      (await import("../lib/commands/uninstall.ts")).uninstallCommand,
  },
  completion: {
    group: "Shell",
    takes: "<shell>",
    meaning: "Completion for bash, zsh, fish",
    load: async () => {
      const { completionCommand } = await import(
        "../lib/commands/completion.ts"
      );
      return (io) => completionCommand(io, allCommands);
    },
  },
};

/** Other words for commands, and what they stand for. */
const synonyms: Record<string, string[]> = {
  list: ["sessions", "list"],
  ls: ["sessions", "list"],
  ps: ["sessions", "list"],
  status: ["daemon", "status"],
  start: ["--detach"],
  new: ["--new"],
  resume: ["attach"],
  rm: ["sessions", "rm"],
  version: ["--version"],
};

/** Words that are not taken for directories. */
export const commandNames = [
  ...Object.keys(subcommands),
  ...Object.keys(synonyms),
  "help",
];

/** All commands by name; the one that opens a project is "". */
async function allCommands(
  io: Io,
): Promise<[name: string, meaning: string, cli: CAC][]> {
  const loaded = await Promise.all(
    Object.entries(subcommands).map(async ([name, { meaning, load }]) =>
      [name, meaning, (await load())(io)] as [string, string, CAC]
    ),
  );
  return [["", "", projectCommand(io)], ...loaded];
}

export async function main(argv: string[], io = new Io()): Promise<number> {
  const words = withoutSynonyms(argv);
  const at = commandAt(words);
  const name = words[at] ?? "";
  const subcommand = Object.hasOwn(subcommands, name)
    ? subcommands[name]
    : undefined;
  if (!subcommand) return await runCli(projectCommand(io), words, io);
  const cli = (await subcommand.load())(io);
  return await runCli(cli, words.toSpliced(at, 1), io, async (error) => {
    const { runElsewhere } = await import("../lib/commands/elsewhere.ts");
    return await runElsewhere(io, words.slice(at), error);
  });
}

const commandAt = (argv: string[]) =>
  argv.findIndex((word) => word !== "--verbose");

function withoutSynonyms(argv: string[]): string[] {
  const at = commandAt(argv);
  const word = argv[at] ?? "";
  if (word === "help") {
    const meant = withoutSynonyms(argv.toSpliced(at, 1));
    const name = meant[commandAt(meant)];
    // An unknown command is reported as one.
    const known = name === undefined || name.startsWith("-") ||
      Object.hasOwn(subcommands, name);
    return known ? [...meant, "--help"] : meant;
  }
  return Object.hasOwn(synonyms, word)
    ? argv.toSpliced(at, 1, ...synonyms[word] ?? [])
    : argv;
}

/** The command without a subcommand: opens a project, or shows help. */
function projectCommand(io: Io): CAC {
  const cli = openCommand(io, commandNames);
  const { globalCommand } = cli;
  const { helpCallback } = globalCommand;
  globalCommand.helpCallback = (sections) => {
    const shown = helpCallback?.(sections) ?? sections;
    const rest = shown.splice(2); // after the name and the usage
    return [
      ...shown,
      ...helpOfSubcommands(),
      { body: "See claudy COMMAND --help for the options of a command." },
      ...rest,
    ];
  };
  return cli;
}

function helpOfSubcommands(): { title: string; body: string }[] {
  const rows = Object.entries(subcommands).map((
    [name, { group, takes, meaning }],
  ) => [group, [name, takes].filter(Boolean).join(" "), meaning] as const);
  const opening = [
    "Sessions",
    "[directory]",
    "Open the session of a project (default: here)",
  ] as const;
  const all = [opening, ...rows];
  const width = Math.max(...all.map(([, name]) => name.length));
  return [...new Set(all.map(([group]) => group))].map((title) => ({
    title,
    body: all.filter(([group]) => group === title)
      .map(([, name, meaning]) => `  ${name.padEnd(width)}  ${meaning}`)
      .join("\n"),
  }));
}

if (import.meta.main) await execute(main);
