// What a user may choose or approve before a session starts, and the shells' completion.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { PassThrough } from "node:stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Io } from "../../lib/cli/io.ts";
import { mcpChoice, profileChoice } from "../../lib/commands/start-options.ts";
import { approveConfig, repositoryConsent } from "../../lib/commands/trust.ts";
import { checkServers } from "../../lib/mcp/config.ts";
import {
  checkChoice,
  chosenServers,
  configuredServers,
  warnAboutUnavailable,
} from "../../lib/mcp/offer.ts";
import type { ProjectConfig } from "../../lib/project/project-config.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { listen } from "../../lib/std/socket-lines.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";
import { runMain } from "../helper/run-main.ts";

const test = suite<FakeInstance>("choices");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

test("--mcp chooses servers by name, all or none", () => {
  assert.is(mcpChoice({}), undefined);
  assert.is(mcpChoice({ mcp: true }), undefined);
  assert.is(mcpChoice({ mcp: false }), false);
  assert.equal(mcpChoice({ mcp: "a, b,," }), ["a", "b"]);
  assert.is(mcpChoice({ mcp: "a,all" }), true);
  assert.equal(mcpChoice({ mcp: 7 }), ["7"]);
  assert.equal(profileChoice({}), { name: undefined, build: true });
  assert.equal(profileChoice({ profile: 3, build: false }), {
    name: "3",
    build: false,
  });
});

const servers = checkServers({
  notes: { command: "cat", port: 3050 },
  web: { command: "cat", port: 3051 },
}, { CHROMADB_PORT: 8000 });

test("a session gets only the chosen servers, and an unknown name is refused", () => {
  const names = (choice: Parameters<typeof chosenServers>[1]) => [
    ...chosenServers(servers, choice).keys(),
  ];
  assert.equal(names(true), ["notes", "web"]);
  assert.equal(names(false), []);
  assert.equal(names(["web"]), ["web"]);
  for (const choice of [true, false, ["web", "notes"]]) {
    checkChoice(servers, choice);
  }
  assert.throws(
    () => checkChoice(servers, ["web", "note"]),
    ({ kind, message, hint }: Failure) =>
      kind === "notFound" && message === 'There is no MCP server "note"' &&
      hint === 'Did you mean "notes"? See claudy mcp list.',
  );
});

test("an invalid configuration of servers is reported, and a missing one is none", ({ instance, told, log }) => {
  assert.is(configuredServers(instance, log).size, 0);
  assert.equal(told, []);
  writeFileSync(instance.home.mcpConfig, "{");
  assert.is(configuredServers(instance, log).size, 0);
  assert.equal(told, [
    "warning: no MCP servers: config/mcp.json is not valid JSON",
  ]);
});

test("chosen servers that do not answer are named in one warning", async ({ instance, told, log }) => {
  const { home } = instance;
  await warnAboutUnavailable(instance, new Map(), log);
  assert.equal(told.splice(0), []);
  await warnAboutUnavailable(instance, servers, log);
  assert.equal(told.splice(0), [
    "warning: the MCP gateway is not running; start it: claudy mcp start",
  ]);
  let state = "starting";
  mkdirSync(dirname(home.mcpControl), { recursive: true });
  const served = (name: string, state: string) => ({
    name,
    state,
    port: 1,
    isolation: "session",
    sessions: 0,
    processes: 0,
    calls: 0,
    errors: 0,
    latencyMs: { p50: null, p99: null },
    lastError: null,
  });
  const gateway = await listen(home.mcpControl, () =>
    Promise.resolve({
      pid: 1,
      tunnels: null,
      servers: [served("web", "ready"), served("notes", state)],
    }));
  await warnAboutUnavailable(instance, servers, log);
  assert.equal(told, []);
  state = "failing";
  await warnAboutUnavailable(instance, servers, log);
  await gateway.close();
  assert.equal(told, ["warning: MCP servers that do not answer: notes"]);
});

function terminal(
  reply: string,
  isTTY = true,
): { io: Io; shown: () => string } {
  let shown = "";
  const stdin = Object.assign(new PassThrough(), { isTTY });
  stdin.write(reply);
  const stderr = Object.assign(new PassThrough(), {
    isTTY,
    write: (text: string | Uint8Array) => {
      shown += String(text);
      return true;
    },
  }) as unknown as NodeJS.WriteStream;
  const io = new Io({
    env: {},
    stdin: stdin as unknown as NodeJS.ReadStream,
    stdout: stderr,
    stderr,
  });
  return { io, shown: () => shown };
}

const config = {
  digest: "d",
  files: [],
  lines: [],
} as unknown as ProjectConfig;

test("a project's configuration is approved by option or at a terminal, never unseen", async () => {
  const fault = { ...config, fault: "a filter" } as ProjectConfig;
  const yes = terminal("y\n");
  assert.is(await approveConfig(yes.io)(fault), true);
  assert.match(yes.shown(), "Git may run programs of this project: a filter");
  assert.match(yes.shown(), "Start Claude anyway? [y/N]");
  assert.is(await approveConfig(terminal("n\n").io)(fault), false);
  // Detached, or without a terminal, nobody is asked.
  const detached = terminal("y\n");
  assert.is(await approveConfig(detached.io, false, true)(fault), false);
  assert.is(await approveConfig(terminal("y\n", false).io)(fault), false);
  assert.is(detached.shown(), "");
  assert.is(await approveConfig(detached.io, true, true)(fault), true);
});

test("the repository of a worktree is mounted by option, else after asking at a terminal", () => {
  assert.equal(repositoryConsent(terminal("", false).io), {
    allowed: false,
    ask: undefined,
  });
  const { allowed, ask } = repositoryConsent(terminal("").io, true);
  assert.is(allowed, true);
  assert.type(ask, "function");
});

/** The commands that claudy's help lists, with their meanings. */
const commands = {
  attach: "Attach to a session",
  daemon: "start, stop, restart",
  mcp: "start, stop, restart",
  completion: "Completion for bash",
};

for (const shell of ["bash", "zsh", "fish"]) {
  test(`completion for ${shell} knows commands, actions, options and sessions`, async () => {
    const { code, stdout } = await runMain(claudy, ["completion", shell]);
    assert.is(code, 0);
    assert.ok(stdout.startsWith(shell === "zsh" ? "#compdef claudy" : "# "));
    assert.ok(stdout.includes('/sessions/kept" 2>/dev/null | sed -n'));
    for (const [name, meaning] of Object.entries(commands)) {
      assert.match(stdout, RegExp(`\\b${name}\\b`));
      if (shell !== "bash") assert.ok(stdout.includes(meaning), name);
    }
    const lineOf = (part: string) =>
      stdout.split("\n").filter((line) => line.includes(part)).join("\n");
    const quoted = shell === "fish";
    const stop = lineOf(quoted ? "seen_subcommand_from stop'" : "    stop) ");
    assert.match(stop, quoted ? "-l json" : "--json");
    assert.match(
      stop,
      { bash: "sessions=yes", zsh: "_claudy_sessions", fish: "_claudy_sess" }[
        shell
      ] ?? "",
    );
    const daemon = lineOf(
      quoted ? "seen_subcommand_from daemon'" : "    daemon) ",
    );
    assert.match(daemon, "start stop restart status logs");
    assert.not.match(daemon, "_claudy_sessions");
    assert.not.match(daemon, "sessions=yes");
    const shells = lineOf(
      quoted ? "seen_subcommand_from completion'" : "    completion) ",
    );
    assert.match(shells, "bash zsh fish");
    // Of the command that opens a project.
    assert.match(stdout, quoted ? / -l no-build$/m : / --no-build /);
    assert.match(stdout, quoted ? / -s d$/m : / -d /);
  });
}

test.run();
