import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  checkServer,
  checkServers,
  expandServer,
} from "../../lib/mcp/config.ts";
import { workerToken } from "../../lib/mcp/identity.ts";
import { offerServers } from "../../lib/mcp/offer.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";

const test = suite("mcp-config");
const settings = { CHROMADB_PORT: 8000 };

const faults: [unknown, string][] = [
  [{ command: "cat" }, 'x: "port" is missing'],
  [{ port: 3050 }, "x needs a command or a url"],
  [{ port: 3050, command: "cat", url: "http://localhost/mcp" }, "x has a"],
  [{ port: 3050, url: "http://example.org/mcp" }, 'x: "url" must be'],
  [{ port: 3050, command: "cat", api: true }, 'x: "api" needs a url'],
  [{ port: 3050, url: "ftp://localhost/mcp" }, 'x: "url" must be'],
  [{ port: 3050, url: "http://127.example.org/" }, 'x: "url" must be'],
  [{ port: 80, command: "cat" }, 'x: "port" must be a port'],
  [{ port: 3050.5, command: "cat" }, 'x: "port" must be a port'],
  [{ port: "3050", command: "cat" }, 'x: "port" must be a port'],
  [{ port: 8000, command: "cat" }, "x has the same port as ChromaDB"],
  [{ port: 20_001, command: "cat" }, "x has the same port as the sessions"],
  [{ port: 3050, command: "cat", isolation: "none" }, 'x: "isolation" must'],
  [{ port: 3050, command: "cat", idleTimeout: 0 }, 'x: "idleTimeout" must'],
  [{ port: 3050, command: "cat", idleTimeout: 1e9 }, 'x: "idleTimeout" must'],
  [{ port: 3050, command: "cat", memory: "1m" }, 'x: "memory" must be a size'],
  [{ port: 3050, command: "cat", memory: 64 }, 'x: "memory" must be a size'],
  [{ port: 3050, command: "cat", processes: 0 }, 'x: "processes" must be'],
  [
    { port: 3050, command: "cat", env: { A: 1 } },
    'x: "env.A" must be a string',
  ],
  [{ port: 3050, command: "cat", args: "planted" }, 'x: "args" must be a list'],
  [
    { port: 3050, command: "cat", comand: "planted" },
    '"comand" is not a known field',
  ],
  [{ port: 3050, command: "cat", type: "sse" }, 'x: "type" must be'],
  [null, "x must be an object"],
];

for (const [given, expected] of faults) {
  test(`checkServers() refuses ${JSON.stringify(given)}`, () => {
    assert.throws(
      () => checkServers({ x: given }, settings),
      (error: Error) =>
        error.message.startsWith("config/mcp.json: ") &&
        error.message.includes(expected) && !error.message.includes("planted"),
    );
  });
}

test("checkServers() refuses duplicate ports and invalid names", () => {
  const server = { command: "cat", port: 3050 };
  assert.throws(() => checkServers({ a: server, b: server }, settings), /same/);
  for (
    const name of [
      "gateway",
      "constructor",
      "a/b",
      "",
      "1a",
      "a b",
      "..",
      "x".repeat(60),
    ]
  ) {
    assert.throws(
      () => checkServers({ [name]: server }, settings),
      /name of a server|is a reserved name/,
    );
  }
});

test("expandServer() expands variables of the environment or their defaults", () => {
  const server = checkServer("x", {
    command: "${DIRECTORY}/server",
    args: ["--depth=${DEPTH:-3}", "$HOME", "${EMPTY:-}"],
    env: { TOKEN: "${TOKEN}" },
    port: 3050,
  }, "here");
  const { command, args, env } = expandServer(server, {
    DIRECTORY: "/opt",
    TOKEN: "planted",
  });
  assert.is(command, "/opt/server");
  assert.equal(args, ["--depth=3", "$HOME", ""]);
  assert.equal(env, { TOKEN: "planted" });
  assert.throws(
    () => expandServer(server, { DIRECTORY: "/" }),
    /^TOKEN is not/,
  );
});

test("offerServers() removes its own entries and keeps the session's", () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  const instance = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  mkdirSync(join(instance, "secrets"));
  const path = join(home, ".claude.json");
  const api = { url: "http://localhost:4000", api: true, port: 3099 };
  const offer = (servers: Record<string, number>) => {
    const given = [
      ...Object.entries(servers)
        .map(([name, port]) => [name, { command: "cat", port }]),
      // No MCP server, so it is never offered as one.
      ["gateway-of-api", api],
    ];
    offerServers(
      { home: homePaths(instance), owner: ownerOf(home) },
      home,
      ownerOf(home),
      checkServers(Object.fromEntries(given), settings),
    );
  };
  try {
    const own = { type: "http", url: "http://127.0.0.1:3050/mcp" };
    writeFileSync(path, JSON.stringify({ kept: 1, mcpServers: { own } }));
    const now = () => JSON.parse(readFileSync(path, "utf8"));
    offer({ a: 3050, own: 3051 });
    assert.equal(Object.keys(now().mcpServers), ["a", "own"]);
    assert.equal(now().mcpServers.own, own);
    const key = readFileSync(join(instance, "secrets", "mcp_key"), "utf8");
    const { headers } = now().mcpServers.a;
    const token = workerToken(key, relative(instance, home));
    assert.is(headers["X-HAL9000-Worker"], token);
    assert.is(statSync(path).mode & 0o777, 0o600);
    offer({ b: 3052 });
    assert.equal(Object.keys(now().mcpServers), ["b", "own"]);
    offer({});
    assert.equal(now(), { kept: 1, mcpServers: { own } });
    // A file that the worker has broken is left to the CLI.
    const deep = `{"x":${"[".repeat(20_000)}${"]".repeat(20_000)}}`;
    const texts = '{"mcpServers":"abc"}';
    const large = JSON.stringify({ x: "x".repeat(16 * 1024 * 1024) });
    for (const odd of ["{", "[]", "null", '"text"', deep, texts, large]) {
      writeFileSync(path, odd);
      offer({ a: 3050 });
      assert.ok(readFileSync(path, "utf8") === odd, odd.slice(0, 20));
    }
    rmSync(path);
    mkdirSync(path);
    offer({ a: 3050 });
  } finally {
    rmSync(home, { recursive: true, force: true });
    rmSync(instance, { recursive: true, force: true });
  }
});

test.run();
