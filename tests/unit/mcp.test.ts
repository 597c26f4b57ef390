import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Child, Sink } from "../../lib/mcp/child.ts";
import {
  checkServer,
  checkServers,
  expandServer,
} from "../../lib/mcp/config.ts";
import { offerServers } from "../../lib/mcp/offer.ts";
import { Session } from "../../lib/mcp/session.ts";
import { StdioTransport } from "../../lib/mcp/stdio.ts";
import { ownerOf } from "../../lib/owned.ts";

const test = suite("mcp");
const settings = { CHROMADB_PORT: 8000 };

const faults: [unknown, RegExp][] = [
  [{ command: "cat" }, /x\.port/],
  [{ port: 3050 }, /needs a command or a url/],
  [{ port: 3050, command: "cat", url: "http://localhost/mcp" }, /needs a/],
  [{ port: 80, command: "cat" }, /1024 to 65535/],
  [{ port: 3050.5, command: "cat" }, /x\.port/],
  [{ port: 8000, command: "cat" }, /ChromaDB/],
  [{ port: 20_001, command: "cat" }, /the sessions' own ports/],
  [{ port: 3050, command: "cat", isolation: "none" }, /x\.isolation/],
  [{ port: 3050, command: "cat", idleTimeout: 0 }, /x\.idleTimeout/],
  [{ port: 3050, command: "cat", env: { A: 1 } }, /x\.env/],
  [{ port: 3050, command: "cat", comand: "planted" }, /x\.comand|comand/],
  [null, /x/],
];

for (const [given, expected] of faults) {
  test(`checkServers() refuses ${JSON.stringify(given)}`, () => {
    assert.throws(
      () => checkServers({ x: given }, settings),
      (error: Error) =>
        expected.test(error.message) && !error.message.includes("planted"),
    );
  });
}

test("checkServers() refuses two of one port, and names of no use", () => {
  const server = { command: "cat", port: 3050 };
  assert.throws(() => checkServers({ a: server, b: server }, settings), /same/);
  for (const name of ["a/b", "", "1a", "a b", "..", "x".repeat(60)]) {
    assert.throws(() => checkServers({ [name]: server }, settings), /name/);
  }
});

test("expandServer() takes variables from the environment, or what stands for them", () => {
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

/** A process that says nothing by itself. */
class Mute {
  readonly heard: JSONRPCMessage[] = [];
  sink: Sink | undefined;
  attach(sink: Sink) {
    this.sink = sink;
  }
  detach() {}
  send(_: Sink, message: JSONRPCMessage) {
    this.heard.push(message);
    if (!("method" in message) || message.method !== "initialize") return;
    const id = "id" in message ? message.id as number : 0;
    this.sink?.deliver({ jsonrpc: "2.0", id, result: {} }, id);
  }
}

async function session() {
  const child = new Mute();
  const failures: string[] = [];
  const opened = new Session({
    id: "11111111-1111-1111-1111-111111111111",
    child: child as unknown as Child,
    ownsChild: false,
    answered: () => {},
    failed: (reason) => failures.push(reason),
    left: () => {},
    closed: () => {},
  });
  const post = (message: object) =>
    opened.handle(
      new Request("http://gateway/mcp", {
        method: "POST",
        headers: {
          accept: "application/json, text/event-stream",
          "content-type": "application/json",
          "mcp-session-id": opened.id,
        },
        body: JSON.stringify({ jsonrpc: "2.0", ...message }),
      }),
    );
  await opened.start();
  const welcome = await post({
    id: 0,
    method: "initialize",
    params: {
      protocolVersion: "2025-06-18",
      capabilities: {},
      clientInfo: { name: "test", version: "1" },
    },
  });
  await welcome.text();
  return { opened, child, failures, post };
}

const call = { method: "tools/call", params: { name: "x" } };

test("a session ends the stream of a request that its client has cancelled", async () => {
  const { opened, child, post } = await session();
  const answer = await post({ id: 1, ...call });
  await post({
    method: "notifications/cancelled",
    params: { requestId: 1 },
  });
  assert.is(await answer.text(), "");
  assert.is(child.heard.length, 3);
  assert.ok(opened.isIdle(-1));
  await opened.close();
});

test("a session is cut off when its client leaves 64 MB unread, and not before", async () => {
  const { opened, child, failures, post } = await session();
  const answers = [];
  const answer = (id: number) =>
    child.sink?.deliver(
      { jsonrpc: "2.0", id, result: { text: "x".repeat(20_000_000) } },
      id,
    );
  for (const id of [1, 2, 3]) {
    answers.push(await post({ id, ...call }));
    answer(id);
  }
  assert.equal(failures, []);
  // What was read is no more of it.
  assert.ok((await answers[0]?.text() ?? "").length > 20_000_000);
  answers.push(await post({ id: 4, ...call }));
  answer(4);
  assert.equal(failures, []);
  answers.push(await post({ id: 5, ...call }));
  answer(5);
  assert.is(failures.length, 1);
  await answers[4]?.text().then(
    () => assert.unreachable(),
    (error) => assert.match(error.message, "not read"),
  );
  await opened.close();
});

async function heard(script: string, wanted: number) {
  const messages: JSONRPCMessage[] = [];
  const errors: string[] = [];
  const transport = new StdioTransport({
    command: "sh",
    args: ["-c", script],
    env: {},
    stderr: () => {},
  });
  transport.onmessage = (message) => messages.push(message);
  transport.onerror = ({ message }) => errors.push(message);
  const ended = new Promise<void>((resolve) => transport.onclose = resolve);
  await transport.start();
  for (let at = 0; at < 400 && messages.length < wanted; at++) await sleep(25);
  return { messages, errors, transport, ended };
}

test("a process is heard in pieces of any size, and what is no message is left out", async () => {
  const note = '{"jsonrpc":"2.0","method":"notifications/x"}';
  const { messages, errors, transport } = await heard(
    `printf '%s' '${
      note.slice(0, 20)
    }'; sleep 0.1; printf '%s\\n%s\\nnonsense\\n\\n' '${
      note.slice(20)
    }' '${note}'
     printf '{"jsonrpc":"2.0","id":1,"result":{"text":"'; head -c 10000000 /dev/zero | tr '\\0' x; printf '"}}\\n'
     cat >/dev/null`,
    3,
  );
  assert.is(messages.length, 3);
  assert.ok(JSON.stringify(messages[2]).length > 10_000_000);
  assert.is(errors.length, 2);
  await transport.close();
});

test("a process that will not end is ended, with what it started", async () => {
  const note = '{"jsonrpc":"2.0","method":"notifications/x"}';
  const { transport, ended } = await heard(
    `trap '' TERM; sleep 987 & echo '${note}'; while :; do sleep 988; done`,
    1,
  );
  await transport.close();
  await ended;
  const left = await heard(
    `ps axww -o args | grep -c 'sleep 98[78]' | sed 's/.*/{"jsonrpc":"2.0","id":&,"result":{}}/'`,
    1,
  );
  assert.is((left.messages[0] as { id: number }).id, 0);
});

test("offerServers() takes back what it gave and leaves what is the session's own", () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  const path = join(home, ".claude.json");
  const offer = (servers: Record<string, number>) => {
    const given = Object.entries(servers)
      .map(([name, port]) => [name, { command: "cat", port }]);
    offerServers(
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
    offer({ b: 3052 });
    assert.equal(Object.keys(now().mcpServers), ["b", "own"]);
    offer({});
    assert.equal(now(), { kept: 1, mcpServers: { own } });
    // What a worker has made of the file is left to the CLI.
    for (const odd of ["{", "[]", "null", '"text"']) {
      writeFileSync(path, odd);
      offer({ a: 3050 });
      assert.is(readFileSync(path, "utf8"), odd);
    }
    rmSync(path);
    mkdirSync(path);
    offer({ a: 3050 });
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
});

test.run();
