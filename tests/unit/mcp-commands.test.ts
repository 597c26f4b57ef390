// claudy mcp with an engine that it can reach, and a gateway that only answers what a test
// tells it.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { dirname, join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { ServedStatus } from "../../lib/mcp/client.ts";
import { Failure } from "../../lib/std/errors.ts";
import { listen, type Listener } from "../../lib/std/socket-lines.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

interface Context extends Served {
  gateway?: Listener | undefined;
  server?: Server | undefined;
  mcp: (words: string, env?: NodeJS.ProcessEnv) => ReturnType<Served["run"]>;
  /** The servers in config/mcp.json. */
  configured: () => Record<string, Record<string, unknown>>;
}

const test = suite<Context>("mcp commands");

test.before.each(async (context) => {
  Object.assign(context, await serveEngine());
  context.gateway = undefined;
  context.server = undefined;
  const { run, instance: { home } } = context;
  context.mcp = (words, env = {}) =>
    run(claudy, ["mcp", ...words.split(" ")], { env });
  context.configured = () =>
    JSON.parse(readFileSync(home.mcpConfig, "utf8")).mcpServers;
});
test.after.each(async ({ gateway, server, close }) => {
  server?.closeAllConnections();
  server?.close();
  await gateway?.close();
  await close();
});

const ready: ServedStatus = {
  name: "notes",
  state: "ready",
  port: 3050,
  isolation: "session",
  sessions: 2,
  processes: 3,
  calls: 44,
  errors: 0,
  latencyMs: { p50: 5, p99: 9 },
  lastError: null,
};

/** Serves a gateway with these servers; returns the operations that it gets. */
async function serve(
  context: Context,
  servers: ServedStatus[],
): Promise<string[]> {
  const asked: string[] = [];
  const { home } = context.instance;
  mkdirSync(dirname(home.mcpControl), { recursive: true });
  context.gateway = await listen(home.mcpControl, (request) => {
    const { op } = request as { op: string };
    asked.push(op);
    if (op === "stop") setTimeout(() => context.gateway?.close(), 20);
    return Promise.resolve({ pid: 1, tunnels: null, servers });
  });
  return asked;
}

function configure({ instance: { home } }: Context, servers: object): void {
  writeFileSync(home.mcpConfig, JSON.stringify({ mcpServers: servers }));
}

const cat = { command: "/bin/cat", port: 3050 };

/** Cells of the lines of a table. */
const table = (text: string) =>
  text.trimEnd().split("\n").map((line) => line.split(/ {2,}/));

test("the status shows each server's numbers and its last error", async (context) => {
  assert.is(
    (await context.mcp("status")).stdout,
    "The MCP gateway is not running. Start it: claudy mcp start\n",
  );
  const none = await context.mcp("status --json");
  assert.equal(JSON.parse(none.stdout), {
    pid: null,
    tunnels: null,
    servers: [],
  });
  const idle = {
    ...ready,
    name: "idle",
    state: "failing" as const,
    latencyMs: { p50: null, p99: null },
    lastError: "it exited",
  };
  await serve(context, [ready, idle]);
  const [head, first, second] = table((await context.mcp("status")).stdout);
  assert.equal(head, [
    ...["SERVER", "STATE", "PORT", "CLIENTS", "PROCESSES", "CALLS"],
    ...["P50", "P99", "LAST ERROR"],
  ]);
  assert.equal(first, [
    ...["notes", "ready", "3050", "2", "3", "44", "5 ms", "9 ms"],
  ]);
  assert.equal(second, [
    ...["idle", "failing", "3050", "2", "3", "44", "it exited"],
  ]);
});

test("a gateway of another version is reported", async (context) => {
  await serve(context, [{ ...ready, port: "x" as unknown as number }]);
  const ran = await context.mcp("status");
  assert.is(ran.code, 1);
  assert.match(ran.stderr, "another version\nRestart it: claudy mcp restart");
});

test("a home whose path is too long for a socket is refused with the reason", async ({ root, mcp }) => {
  const env = { HAL9000_HOME: join(root, "x".repeat(120)) };
  const ran = await mcp("status", env);
  assert.is(ran.code, 2);
  assert.match(ran.stderr, "Too long for a socket: ");
  assert.match(ran.stderr, "Give HAL9000_HOME a shorter path.");
});

test("what the gateway refuses is said in its words", async (context) => {
  const { home } = context.instance;
  context.gateway = await listen(home.mcpControl, () => {
    throw new Failure("busy", "it is being reloaded");
  });
  const ran = await context.mcp("status");
  assert.equal([ran.code, ran.stderr], [5, "error: it is being reloaded\n"]);
});

test("the list shows no values that may be secrets", async (context) => {
  configure(context, {
    web: {
      url: "http://me:word@localhost:1234/mcp?key=planted#planted",
      port: 3060,
    },
    notes: {
      ...cat,
      args: ["--key=planted"],
      env: { KEY: "planted" },
      isolation: "shared",
    },
  });
  const { stdout } = await context.mcp("list");
  assert.equal(table(stdout), [
    ["SERVER", "PORT", "ISOLATION", "WHAT"],
    ["web", "3060", "session", "http://localhost:1234/mcp"],
    ["notes", "3050", "shared", "/bin/cat"],
  ]);
  const json = await context.mcp("list --json");
  assert.not.match(json.stdout, "planted");
  assert.equal(JSON.parse(json.stdout)[1], {
    name: "notes",
    port: 3050,
    isolation: "shared",
    what: "/bin/cat",
    arguments: 1,
    variables: ["KEY"],
  });
});

test("a server is added with all its options", async (context) => {
  configure(context, { other: { command: "cat", port: 3010 } });
  const ran = await context.mcp(
    "add notes --isolation shared --idle-timeout 9 --env A=1=2 --env B " +
      "-- ./run --flag",
    { B: "two" },
  );
  assert.is(ran.code, 0, ran.stderr);
  assert.is(ran.stdout, "Added: notes\n");
  assert.match(ran.stderr, "Start them with: claudy mcp start");
  assert.equal(context.configured()["notes"], {
    command: join(process.cwd(), "run"),
    args: ["--flag"],
    env: { A: "1=2", B: "two" },
    // The first free one.
    port: 3011,
    isolation: "shared",
    idleTimeout: 9,
  });
  await context.run(claudy, [
    ...["mcp", "add", "web", "--url", "http://localhost:5/mcp"],
    ...["--header", "X-Key: a: b", "--port", "3999"],
  ]);
  assert.equal(context.configured()["web"], {
    url: "http://localhost:5/mcp",
    headers: { "X-Key": "a: b" },
    port: 3999,
  });
  assert.equal(context.configured()["other"], { command: "cat", port: 3010 });
  await context.mcp("add api --api --url http://localhost:4000");
  assert.equal(context.configured()["api"], {
    url: "http://localhost:4000",
    api: true,
    port: 3012,
  });
});

const refusals: [words: string, says: string][] = [
  ["add", "Missing server name"],
  ["remove", "Missing server name"],
  ["add notes -- cat", 'MCP server "notes" already exists'],
  ["add new --api -- cat", "--api needs --url"],
  ["add new --env A=1", "--env needs a program after --"],
  ["add new --header A:b -- cat", "--header needs --url"],
  ["add new", "mcp add: new needs a command or a url"],
  ["add new --url http://localhost/x --header x", "must be NAME: VALUE"],
  ["add new --url http://localhost/x --header A:", "must be NAME: VALUE"],
  ["add new --url http://localhost/x --header b.c:d", "must be NAME: VALUE"],
  ["add new --url http://example.org/", "mcp add: new"],
  ["add new --env NOT_SET -- cat", "--env NOT_SET: the variable is not set"],
  ["add new --env 1A=x -- cat", "--env must be KEY=VALUE"],
  ["add new --port 3050 -- cat", "new has the same port as notes, 3050"],
  ["add new --port 80 -- cat", '"port" must be a port from 1024'],
  ["add new --isolation none -- cat", '"isolation" must be'],
];

for (const [words, says] of refusals) {
  test(`mcp ${words} is refused and changes nothing`, async (context) => {
    configure(context, { notes: cat });
    const ran = await context.mcp(words);
    assert.is.not(ran.code, 0);
    assert.ok(ran.stderr.includes(says), ran.stderr);
    assert.equal(context.configured(), { notes: cat });
  });
}

test("a running gateway starts an added server, and its state is shown", async (context) => {
  configure(context, {});
  const asked = await serve(context, [
    ready,
    { ...ready, name: "other", port: 3051 },
  ]);
  const ran = await context.mcp("add notes --port 3050 -- cat");
  assert.equal(table(ran.stdout).map(([name]) => name), ["SERVER", "notes"]);
  assert.match(ran.stderr, "Restart sessions to apply the change");
  assert.is(asked[0], "reload");
});

test("only a known server is removed, and only after consent", async (context) => {
  const { mcp, configured } = context;
  configure(context, { notes: cat, other: { ...cat, port: 3051 } });
  const unknown = await mcp("remove note --yes");
  assert.is(unknown.code, 4);
  assert.match(unknown.stderr, 'There is no MCP server "note"');
  assert.match(unknown.stderr, 'Did you mean "notes"? See claudy mcp list.');
  const refused = await mcp("remove notes");
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "Remove notes?");
  assert.equal(Object.keys(configured()), ["notes", "other"]);
  const done = await mcp("remove notes --yes --json");
  assert.equal(JSON.parse(done.stdout), { removed: "notes" });
  assert.equal(Object.keys(configured()), ["other"]);
});

test("the default servers whose program is missing are left out of a new configuration", async (context) => {
  const { root, mcp, configured } = context;
  const bin = join(root, "bin");
  mkdirSync(bin);
  writeFileSync(join(bin, "chroma-mcp"), "#!/bin/sh\n", { mode: 0o755 });
  const ran = await mcp("add notes -- cat", { PATH: bin });
  assert.is(ran.code, 0, ran.stderr);
  assert.ok("chroma" in configured());
  const later = await mcp("remove notes --yes", { PATH: "" });
  assert.is(later.code, 0, later.stderr);
  assert.ok("chroma" in configured());
});

test("servers of the host's Claude are imported, except those that cannot be", async (context) => {
  const { root, mcp, configured } = context;
  configure(context, { taken: { command: "cat", port: 3010 } });
  const claude = join(root, "claude");
  const wrong = await mcp("add --from-claude", { CLAUDE_HOME: claude });
  assert.is(wrong.code, 4);
  assert.match(wrong.stderr, `File not found: ${claude}/.claude.json or`);
  writeFileSync(`${claude}.json`, "{");
  const broken = await mcp("add --from-claude", { CLAUDE_HOME: claude });
  assert.match(broken.stderr, `Cannot import ${claude}.json: it is not JSON`);
  writeFileSync(`${claude}.json`, '{"mcpServers":[1]}');
  const invalid = await mcp("add --from-claude", { CLAUDE_HOME: claude });
  assert.match(invalid.stderr, `${claude}.json: invalid mcpServers`);
  writeFileSync(
    `${claude}.json`,
    JSON.stringify({
      mcpServers: {
        one: { type: "stdio", command: "one", args: ["x"], env: { A: "1" } },
        two: { type: "http", url: "http://127.0.0.1:9/mcp", headers: {} },
        three: { command: "three" },
        taken: { command: "taken" },
        remote: { type: "http", url: "https://example.org/mcp" },
        events: { type: "sse", url: "http://localhost/mcp" },
        "bad name": { command: "x" },
      },
      projects: { "/p/app": { mcpServers: { mine: { command: "x" } } } },
    }),
  );
  const ran = await mcp("add --from-claude --json", { CLAUDE_HOME: claude });
  assert.is(ran.code, 0, ran.stderr);
  const { added, left } = JSON.parse(ran.stdout);
  assert.equal(added, ["one", "two", "three"]);
  assert.equal(left.slice(0, 4), [
    "mine: only configured for /p/app (use: claude mcp add --scope user)",
    "taken: a server of this name exists",
    "remote: not on this host: sessions use it without the gateway",
    "events: unsupported transport: sse",
  ]);
  assert.match(left[4], 'Claude\'s configuration: "bad name" must be the name');
  assert.match(ran.stderr, "Left out: taken: a server of this name exists");
  const { one, two, three } = configured();
  assert.equal(one, {
    command: "one",
    args: ["x"],
    env: { A: "1" },
    port: 3011,
  });
  assert.equal(two, { url: "http://127.0.0.1:9/mcp", headers: {}, port: 3012 });
  assert.is(three?.["port"], 3013);
  const again = await mcp("add --from-claude", { CLAUDE_HOME: claude });
  assert.is(again.stdout, "Added: nothing\n");
});

test("logs of the gateway and of known servers are printed, and of no other file", async (context) => {
  const { mcp, instance: { home } } = context;
  configure(context, { notes: cat });
  mkdirSync(dirname(home.mcpLog("notes")), { recursive: true });
  writeFileSync(home.mcpLog("notes"), "1\n2\n");
  writeFileSync(home.mcpLog("gateway"), "started\n");
  assert.is((await mcp("logs")).stdout, "started\n");
  assert.is((await mcp("logs notes --tail 1")).stdout, "2\n");
  assert.is((await mcp("logs ../x")).code, 4);
});

test("stop tells whether a gateway ran", async (context) => {
  const none = await context.mcp("stop");
  assert.match(none.stderr, "The MCP gateway is not running");
  const asked = await serve(context, []);
  const ran = await context.mcp("stop");
  assert.match(ran.stderr, "MCP gateway stopped");
  assert.is(asked[0], "stop");
});

test("the parent refuses to change the host's servers", async (context) => {
  const env = { HAL9000_ROLE: "parent" };
  const ran = await context.mcp("remove notes --yes", env);
  assert.is(ran.code, 2);
  assert.match(ran.stderr, "The parent cannot run the host's MCP servers");
  assert.match(ran.stderr, "Run this on the host.");
});

test("doctor greets each server, and tells which one does not answer", async (context) => {
  const { mcp, engine, instance: { home } } = context;
  configure(context, { notes: cat, other: { ...cat, port: 3051 } });
  const off = await mcp("doctor");
  assert.is(off.code, 1);
  assert.match(off.stdout, /^FAIL +gateway +not running; start it: claudy mcp/);
  await serve(context, [ready]);
  const methods: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    methods.push(request.method);
    response.setHeader("mcp-session-id", "s");
    const result = { serverInfo: { name: "Notes", version: "2" } };
    response.end(`data: ${JSON.stringify({ jsonrpc: "2.0", id: 1, result })}`);
  });
  context.server = server;
  await new Promise<void>((done) =>
    server.listen(home.mcpSocket("notes"), done)
  );
  const rows = table((await mcp("doctor")).stdout);
  assert.equal(rows.map((row) => row.slice(0, 2)), [
    ["FAIL", "nsenter"],
    ["ok", "notes"],
    ["FAIL", "other"],
  ]);
  assert.is(rows[0]?.[2], "not running; start it: claudy daemon start");
  assert.is(rows[1]?.[2], "Notes 2");
  assert.match(rows[2]?.[2] ?? "", "(claudy mcp logs other)");
  // The session that the greeting has opened is closed.
  assert.equal(methods, ["POST", "DELETE"]);
  const net = engine.find("fake-net");
  if (net) net.state = "exited";
  const down = table((await mcp("doctor")).stdout);
  assert.equal(down[0], ["ok", "nsenter", "starts with the daemon"]);
});

test.run();
