// Paths of listening sockets, processes of MCP servers, and unread data of clients.

import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Child } from "../../lib/gateway/child.ts";
import { Outlet, Unread } from "../../lib/gateway/outlet.ts";
import { takePath, takePathIfFree } from "../../lib/gateway/place.ts";
import { Watch } from "../../lib/gateway/watch.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { newHome, serve } from "../helper/mcp-served.ts";

const test = suite<{ root: string; path: string }>("mcp-places");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-places-"));
  context.path = join(context.root, "socket");
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

/** Creates a file in place of a listening socket. */
const listenAs = (text: string) => (path: string) => {
  writeFileSync(path, text);
  return Promise.resolve();
};

const takeOnly = (
  path: string,
  answers: () => Promise<boolean>,
  text = "new",
) => takePathIfFree(path, ownerOf(path), listenAs(text), answers);

test("replaces the socket of a killed listener, and leaves no other files", async ({ root, path }) => {
  writeFileSync(path, "old");
  const place = await takeOnly(path, () => Promise.resolve(false));
  assert.ok(place?.isOurs());
  assert.is(readFileSync(path, "utf8"), "new");
  assert.is(statSync(path).mode & 0o777, 0o600);
  assert.equal(readdirSync(root), ["socket"]);
  place?.leave();
  assert.equal(readdirSync(root), []);
});

test("does not replace a socket with a live listener", async ({ root, path }) => {
  writeFileSync(path, "old");
  assert.is(await takeOnly(path, () => Promise.resolve(true)), undefined);
  assert.is(readFileSync(path, "utf8"), "old");
  assert.equal(readdirSync(root), ["socket"]);
});

test("only one of two listeners replaces the same dead socket", async ({ root, path }) => {
  writeFileSync(path, "dead");
  let asked = 0;
  const place = await takeOnly(path, () => {
    // Another listener is faster during the check.
    if (++asked === 1) {
      writeFileSync(`${path}.other`, "faster");
      renameSync(`${path}.other`, path);
      return Promise.resolve(false);
    }
    return Promise.resolve(readFileSync(path, "utf8") === "faster");
  });
  assert.is(place, undefined);
  assert.is(readFileSync(path, "utf8"), "faster");
  assert.equal(readdirSync(root), ["socket"]);
});

test("a listener gives up if its new socket is removed", async ({ root, path }) => {
  writeFileSync(path, "dead");
  let asked = 0;
  const failure = await takeOnly(path, () => {
    asked++;
    const own = readdirSync(root).find((name) => name.startsWith("socket."));
    rmSync(join(root, own ?? ""), { force: true });
    return Promise.resolve(asked > 5);
  }).catch((error: Error) => error);
  assert.match(String(failure), /ENOENT/);
  assert.is(asked, 1);
});

test("a closing listener keeps a socket that another listener owns by now", async ({ path }) => {
  const place = await takePath(path, ownerOf(path), listenAs("one"));
  assert.is(statSync(path).mode & 0o777, 0o660);
  const next = await takePath(path, ownerOf(path), listenAs("two"));
  assert.not(place.isOurs());
  place.leave();
  assert.is(readFileSync(path, "utf8"), "two");
  next.leave();
  assert.not(existsSync(path));
});

/** An MCP server that answers initialize, and records its start in a file. */
const program = `
echo started >>"$1"
while read -r line; do
  case $line in
    *'"method":"initialize"'*)
      echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"x","version":"1"}}}' ;;
  esac
done`;

function child(root: string, command = "/bin/sh") {
  const starts: (string | undefined)[] = [];
  const notes = join(root, "notes");
  const made = new Child({
    home: root,
    command,
    args: ["-c", program, "sh", notes],
    env: {},
    tools: undefined,
    watch: new Watch(),
    limits: { limitGroup: "x", maxMemoryBytes: 1e9, maxProcesses: 9 },
    log: () => {},
    started: (error) => starts.push(error),
    ended: () => {},
  });
  return { made, starts, notes };
}

test("starts an MCP server's process once for concurrent clients", async ({ root }) => {
  const { made, starts, notes } = child(root);
  try {
    await Promise.all([made.ensure(), made.ensure()]);
    await made.ensure();
    assert.ok(made.running);
    assert.is(readFileSync(notes, "utf8"), "started\n");
    assert.equal(starts, [undefined]);
  } finally {
    await made.close();
  }
  assert.is(
    await made.ensure().then(() => "", (error) => error.message),
    "The MCP server is being closed",
  );
});

test("retries to start a process for the next client", async ({ root }) => {
  const { made, starts } = child(root, "/nonexistent/server");
  for (const _ of [1, 2]) {
    assert.ok(await made.ensure().then(() => false, () => true));
  }
  assert.is(starts.length, 2);
  assert.ok(starts.every((fault) => fault !== undefined));
  assert.not(made.running);
  await made.close();
});

test("shows a server that does not start as failing, without affecting others", async () => {
  const served = await serve({ command: "/bin/false", home: newHome() });
  try {
    await served.server.check();
    const { state, processes, errors, lastError } = served.server.status;
    assert.is(state, "failing");
    assert.is(processes, 0);
    assert.is(errors, 1);
    assert.ok(lastError);
  } finally {
    await served.close();
  }
});

/** The body of a client that leaves megabytes unread. */
async function unread(outlet: Outlet, megabytes: number): Promise<void> {
  let left = megabytes;
  outlet.through(
    new ReadableStream<Uint8Array>({
      pull: (controller) => {
        if (left-- > 0) controller.enqueue(new Uint8Array(1024 * 1024));
      },
    }),
    () => {},
  );
  while (left > 0) await new Promise((resolve) => setImmediate(resolve));
}

test("does not disconnect a client that has only begun to send a body", async () => {
  const { setTimeout, Date } = globalThis;
  const late: (() => void)[] = [];
  let now = Date.now();
  let cut = 0;
  const outlet = new Outlet(new Unread(), {
    worker: "w",
    overflowed: () => cut++,
    full: () => {},
  });
  globalThis.setTimeout = ((act: () => void) => {
    late.push(act);
    return {};
  }) as unknown as typeof setTimeout;
  globalThis.Date = { now: () => now } as DateConstructor;
  try {
    await unread(outlet, 70);
    assert.is(late.length, 1);
    now += 4000;
    await unread(outlet, 1);
    now += 1000;
    late.shift()?.();
    assert.is(cut, 0);
    // It is checked again, and has read nothing by then.
    now += 5000;
    late.shift()?.();
    assert.is(cut, 1);
  } finally {
    Object.assign(globalThis, { setTimeout, Date });
    outlet.end(new Error("over"));
  }
});

test.run();
