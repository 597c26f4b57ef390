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
import { Inlet } from "../../lib/mcp/inlet.ts";
import { offerServers } from "../../lib/mcp/offer.ts";
import { Session } from "../../lib/mcp/session.ts";
import { ServerLog } from "../../lib/mcp/server-log.ts";
import { Unread } from "../../lib/mcp/outlet.ts";
import { StdioTransport } from "../../lib/mcp/stdio.ts";
import { ownerOf } from "../../lib/owned.ts";

const test = suite("mcp");
const settings = { CHROMADB_PORT: 8000 };

const faults: [unknown, string][] = [
  [{ command: "cat" }, 'x: "port" is missing'],
  [{ port: 3050 }, "x needs a command or a url"],
  [{ port: 3050, command: "cat", url: "http://localhost/mcp" }, "x has a"],
  [{ port: 3050, url: "http://example.org/mcp" }, 'x: "url" must be'],
  [{ port: 3050, url: "ftp://localhost/mcp" }, 'x: "url" must be'],
  [{ port: 80, command: "cat" }, 'x: "port" must be a port'],
  [{ port: 3050.5, command: "cat" }, 'x: "port" must be a port'],
  [{ port: "3050", command: "cat" }, 'x: "port" must be a port'],
  [{ port: 8000, command: "cat" }, "x has the same port as ChromaDB"],
  [{ port: 20_001, command: "cat" }, "x has the same port as the sessions"],
  [{ port: 3050, command: "cat", isolation: "none" }, 'x: "isolation" must'],
  [{ port: 3050, command: "cat", idleTimeout: 0 }, 'x: "idleTimeout" must'],
  [{ port: 3050, command: "cat", idleTimeout: 1e9 }, 'x: "idleTimeout" must'],
  [{ port: 3050, command: "cat", env: { A: 1 } }, 'x: "env.A" must be text'],
  [{ port: 3050, command: "cat", args: "planted" }, 'x: "args" must be a list'],
  [{ port: 3050, command: "cat", comand: "planted" }, '"comand" is no field'],
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

test("checkServers() refuses two of one port, and names of no use", () => {
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
      /the name of/,
    );
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
  async send(_: Sink, message: JSONRPCMessage) {
    await Promise.resolve();
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
    inlet: new Inlet(),
    unread: new Unread(),
    answered: () => {},
    failed: (reason) => failures.push(reason),
    left: () => {},
    closed: () => {},
  });
  const raw = (body: string | ReadableStream) =>
    opened.handle(
      new Request("http://gateway/mcp", {
        method: "POST",
        headers: {
          accept: "application/json, text/event-stream",
          "content-type": "application/json",
          "mcp-session-id": opened.id,
        },
        body,
        ...{ duplex: "half" },
      }),
    );
  const post = (message: object) =>
    raw(JSON.stringify({ jsonrpc: "2.0", ...message }));
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
  return { opened, child, failures, post, raw };
}

/** A test that waits for nothing fails. */
function within<T>(promise: Promise<T> | undefined): Promise<T | undefined> {
  const late = sleep(5000).then(() => {
    throw new Error("It takes too long");
  });
  return Promise.race([promise, late]);
}

const call = { method: "tools/call", params: { name: "x" } };

test("a session refuses what is no JSON, too deep, too large, or too much at once", async () => {
  const { opened, raw } = await session();
  const deep = "[".repeat(1001) + "]".repeat(1001);
  assert.is((await raw("garbage")).status, 400);
  assert.match(await (await raw(`{"x":${deep}}`)).text(), "too much");
  const wide = `{"x":[${"[],".repeat(250_000)}1]}`;
  assert.match(await (await raw(wide)).text(), "too much");
  const numbers = `{"x":[${"1,".repeat(1_000_000)}1]}`;
  assert.not.match(await (await raw(numbers)).text(), "too much");
  const quoted = await raw(`{"x":"\\"${"[".repeat(2000)}"}`);
  assert.not.match(await quoted.text(), "too much");
  assert.is((await raw(" ".repeat(34_000_000))).status, 413);
  // Two that do not end have what there is room for; a small one passes.
  const stuck = [1, 2].map(() => {
    let end = () => {};
    const body = new ReadableStream({
      start: (controller) => {
        controller.enqueue(new TextEncoder().encode(" ".repeat(32_000_000)));
        end = () => controller.close();
      },
    });
    return { end, response: raw(body) };
  });
  await sleep(100);
  assert.is((await raw(" ".repeat(4_000_000))).status, 503);
  assert.is((await raw("x")).status, 400);
  assert.match(await (await raw("[]")).text(), "no batches");
  for (const { end, response } of stuck) {
    end();
    assert.is((await response).status, 400);
  }
  assert.is((await raw(" ".repeat(4_000_000))).status, 400);
  await opened.close();
});

test("a session ends the stream of a request that its client has cancelled", async () => {
  const { opened, child, post } = await session();
  const answer = await post({ id: 1, ...call });
  await post({
    method: "notifications/cancelled",
    params: { requestId: 1 },
  });
  assert.is(await within(answer.text()), "");
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
  await sleep(50);
  assert.equal(failures, []);
  // What was read is no more of it.
  assert.ok((await within(answers[0]?.text()) ?? "").length > 20_000_000);
  answers.push(await post({ id: 4, ...call }));
  answer(4);
  // What was left behind is neither.
  await answers[1]?.body?.cancel();
  answers.push(await post({ id: 5, ...call }));
  answer(5);
  await sleep(50);
  assert.equal(failures, []);
  answers.push(await post({ id: 6, ...call }));
  answer(6);
  for (let at = 0; at < 120 && failures.length === 0; at++) await sleep(100);
  assert.is(failures.length, 1);
  await within(answers[5]?.text()).then(
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

test("a process that ends while another has its pipes is told of", async () => {
  const note = '{"jsonrpc":"2.0","method":"notifications/x"}';
  const startedAt = Date.now();
  const { transport, ended } = await heard(
    `setsid sleep 5 & sleep 0.3; echo '${note}'; exit 3`,
    1,
  );
  await within(ended);
  assert.ok(Date.now() - startedAt < 4000);
  assert.is(transport.end, "exit code 3");
  await transport.close();
});

test("a process that will not end is ended, with what it started", async () => {
  const note = '{"jsonrpc":"2.0","method":"notifications/x"}';
  const { transport, ended } = await heard(
    `trap '' TERM; sleep 987 & echo '${note}'; while :; do sleep 988; done`,
    1,
  );
  await transport.close();
  await within(ended);
  const left = await heard(
    `ps axww -o args | grep -c 'sleep 98[78]' | sed 's/.*/{"jsonrpc":"2.0","id":&,"result":{}}/'`,
    1,
  );
  assert.is((left.messages[0] as { id: number }).id, 0);
});

test("a log is turned when it is full, and what cannot be written harms nobody", () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  try {
    const path = join(home, "x.log");
    const log = new ServerLog(path, ownerOf(home));
    for (let at = 0; at < 9; at++) log.write(`${at}`.repeat(1024 * 1024));
    assert.is(readFileSync(path, "utf8")[0], "8");
    assert.is(readFileSync(`${path}.1`, "utf8").length, 4 * 1024 * 1024);
    rmSync(`${path}.1`);
    mkdirSync(`${path}.1`);
    for (let at = 0; at < 9; at++) log.write("x".repeat(1024 * 1024));
    rmSync(home, { recursive: true });
    for (let at = 0; at < 9; at++) log.write("x".repeat(1024 * 1024));
    log.close();
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
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
    const deep = `{"x":${"[".repeat(20_000)}${"]".repeat(20_000)}}`;
    const texts = '{"mcpServers":"abc"}';
    for (const odd of ["{", "[]", "null", '"text"', deep, texts]) {
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
