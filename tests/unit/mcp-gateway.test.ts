import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Child, Sink } from "../../lib/gateway/child.ts";
import { Inlet } from "../../lib/gateway/inlet.ts";
import { Session } from "../../lib/gateway/session.ts";
import { ServerLog } from "../../lib/gateway/server-log.ts";
import { Outlet, Unread } from "../../lib/gateway/outlet.ts";
import { StdioTransport } from "../../lib/gateway/stdio.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { serve } from "../helper/mcp-served.ts";

const test = suite("mcp-gateway");
/** A process that writes nothing by itself. */
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
    worker: "a",
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

/** Fails a test that would wait forever. */
function within<T>(promise: Promise<T> | undefined): Promise<T | undefined> {
  const late = sleep(5000).then(() => {
    throw new Error("It takes too long");
  });
  return Promise.race([promise, late]);
}

const call = { method: "tools/call", params: { name: "x" } };

test("a session refuses invalid, deeply nested, oversized and too many requests", async () => {
  const { opened, raw } = await session();
  const deep = "[".repeat(1001) + "]".repeat(1001);
  assert.is((await raw("garbage")).status, 400);
  assert.match(await (await raw(`{"x":${deep}}`)).text(), "too deep");
  const wide = `{"x":[${"[],".repeat(250_000)}1]}`;
  assert.match(await (await raw(wide)).text(), "too deep");
  const numbers = `{"x":[${"1,".repeat(1_000_000)}1]}`;
  assert.not.match(await (await raw(numbers)).text(), "too deep");
  const quoted = await raw(`{"x":"\\"${"[".repeat(2000)}"}`);
  assert.not.match(await quoted.text(), "too deep");
  assert.is((await raw(" ".repeat(34_000_000))).status, 413);
  // An unfinished request uses the available space; a small one still passes.
  const stuck = [1].map(() => {
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
  assert.is((await raw(" ".repeat(16_000_000))).status, 503);
  assert.is((await raw("x")).status, 400);
  assert.match(await (await raw("[]")).text(), "no batches");
  for (const { end, response } of stuck) {
    end();
    assert.is((await response).status, 400);
  }
  assert.is((await raw(" ".repeat(16_000_000))).status, 400);
  await opened.close();
});

test("a session ends the stream of a cancelled request", async () => {
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

test("closes a session when its client leaves 64 MB unread, and not before", async () => {
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
  // Data that was read no longer counts.
  assert.ok((await within(answers[0]?.text()) ?? "").length > 20_000_000);
  answers.push(await post({ id: 4, ...call }));
  answer(4);
  // Data of a closed stream no longer counts either.
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

/** A body of many identical chunks, which share memory. */
function pieces(count: number): ReadableStream<Uint8Array> {
  const piece = new Uint8Array(8 * 1024 * 1024);
  return new ReadableStream({
    start: (controller) => {
      for (let at = 0; at < count; at++) controller.enqueue(piece);
      controller.close();
    },
  });
}

test("pauses a process while its client has 16 MB unread", async () => {
  const said: boolean[] = [];
  const outlet = new Outlet(new Unread(), {
    worker: "a",
    overflowed: () => assert.unreachable(),
    full: (isFull) => said.push(isFull),
  });
  const reader = outlet.through(pieces(4), () => {}).getReader();
  await sleep(50);
  assert.equal(said, [true]);
  let bytes = 0;
  for (let read; !(read = await reader.read()).done;) {
    bytes += read.value.length;
    if (bytes < 20_000_000) assert.equal(said, [true]);
  }
  assert.equal(said, [true, false]);
  assert.is(bytes, 32 * 1024 * 1024);
  assert.not(outlet.isOpen);
});

function outletsOf(workers: string[]) {
  const unread = new Unread();
  const cut: number[] = [];
  const outlets = workers.map((worker, at) => {
    const outlet: Outlet = new Outlet(unread, {
      worker,
      overflowed: () => {
        cut.push(at);
        outlet.end(new Error("cut off"));
      },
      full: () => {},
    });
    return outlet;
  });
  const read = (at: number, count: number) =>
    outlets[at]?.through(pieces(count), () => {});
  return { cut, read };
}

test("closes the client with the most unread data at 512 MB in total", async () => {
  const { cut, read } = outletsOf([..."abcdefghi"]);
  for (let at = 0; at < 8; at++) read(at, at === 5 ? 8 : 7);
  await sleep(50);
  assert.equal(cut, []);
  read(8, 8);
  await sleep(50);
  assert.equal(cut, [5]);
});

test("closes a worker's client with the most unread data at 256 MB", async () => {
  const { cut, read } = outletsOf([..."aaabaa"]);
  for (const at of [0, 1, 2, 3]) read(at, at === 1 ? 8 : 7);
  await sleep(50);
  read(3, 7);
  await sleep(50);
  assert.equal(cut, []);
  // The other worker has the largest client, but less data in total.
  read(4, 7);
  read(5, 7);
  await sleep(50);
  assert.equal(cut, [1]);
});

async function heard(script: string, wanted: number) {
  const messages: JSONRPCMessage[] = [];
  const errors: string[] = [];
  const transport = new StdioTransport({
    home: "/nowhere",
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

test("reads a process's messages in chunks of any size, and skips other output", async () => {
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

test("delivers no messages while a process is paused, and all of them afterwards", async () => {
  const note = '{"jsonrpc":"2.0","method":"notifications/x"}';
  const { messages, transport } = await heard(
    `while :; do echo '${note}'; sleep 0.01; done`,
    1,
  );
  transport.pause(true);
  await sleep(100);
  const before = messages.length;
  await sleep(300);
  assert.is(messages.length, before);
  transport.pause(false);
  for (let at = 0; at < 40 && messages.length === before; at++) await sleep(25);
  assert.ok(messages.length > before);
  transport.pause(true);
  await within(transport.close());
});

test("closes the oldest of many silent connections, and answers the next", async () => {
  const served = await serve({ command: "/bin/cat" });
  const late = sleep(5000).then(() => assert.unreachable());
  try {
    const clients: Socket[] = [];
    while (clients.length < 1500) {
      // At most as many at once as the listen backlog.
      for (let at = 0; at < 100; at++) {
        clients.push(connect(served.socket).on("error", () => {}));
      }
      await sleep(50);
    }
    const answer = await Promise.race([served.send({ id: 1 }), late]);
    assert.is(answer?.status, 400);
    const isOpen = ({ closed }: Socket) => !closed;
    for (let at = 0; at < 80; at++) {
      await sleep(25);
      if (clients.filter(isOpen).length <= 768) break;
    }
    const open = clients.filter(isOpen);
    assert.ok(open.length <= 768 && open.length > 700, `${open.length}`);
    assert.ok(open.includes(clients.at(-2) as Socket));
    assert.not(open.includes(clients[0] as Socket));
  } finally {
    await served.close();
  }
});

test("reports the exit of a process while another holds its pipes open", async () => {
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

test("kills a process that does not exit, with its children", async () => {
  const note = '{"jsonrpc":"2.0","method":"notifications/x"}';
  // Identified by a duration that no other test run uses.
  const own = `.${process.pid}`;
  const { transport, ended } = await heard(
    `trap '' TERM; sleep 987${own} & echo '${note}'; while :; do sleep 988${own}; done`,
    1,
  );
  await transport.close();
  await within(ended);
  const left = await heard(
    `ps axww -o args | grep -c 'sleep 98[78][.]${process.pid}' | sed 's/.*/{"jsonrpc":"2.0","id":&,"result":{}}/'`,
    1,
  );
  assert.is((left.messages[0] as { id: number }).id, 0);
});

test("rotates a full log, and ignores write errors", () => {
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

test.run();
