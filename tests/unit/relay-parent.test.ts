// The relay's part in the parent.

import {
  existsSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  statSync,
} from "node:fs";
import { PassThrough } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readAuthorities } from "../../lib/relay/authority.ts";
import { ensureAuthority, newLeaf } from "../../lib/relay/certificates.ts";
import type { Entry } from "../../lib/relay/entry.ts";
import { LoginRefresh } from "../../lib/home/login.ts";
import { relayChild } from "../../lib/parent/relay.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { fakeInstance } from "../helper/fake-engine.ts";
import { authorities, home, instance } from "../helper/relay.ts";

const test = suite("relay-parent");

test("the authority is private, and has a successor before it expires", async () => {
  const path = home.relayAuthorities;
  assert.is(statSync(path).mode & 0o777, 0o600);
  const before = readFileSync(path, "utf8");
  await ensureAuthority(instance);
  assert.is(readFileSync(path, "utf8"), before);
  const yearMs = 365 * 24 * 60 * 60_000;
  const soon = Date.now() + 4.5 * yearMs;
  await ensureAuthority(instance, soon);
  const both = readAuthorities(home);
  assert.is(both.length, 2);
  assert.equal(both[0], authorities[0]);
  // Sessions trust the first until it is about to expire.
  const { X509Certificate } = await import("node:crypto");
  const signerAt = async (now: number) => {
    const cert = new X509Certificate((await newLeaf(both, now)).cert);
    return both.findIndex(({ cert: one }) =>
      cert.verify(new X509Certificate(one).publicKey)
    );
  };
  assert.is(await signerAt(soon), 0);
  assert.is(await signerAt(Date.now() + 4.95 * yearMs), 1);
  await ensureAuthority(instance, Date.now() + 5.1 * yearMs);
  assert.equal(readAuthorities(home), both.slice(1));
});

const lineOf = (entry: Partial<Entry>) =>
  `${JSON.stringify({ kind: "entry", entry })}\n`;

test("the parent goes on when it could not write or read for a while", async () => {
  const { instance, log, told, end } = fakeInstance();
  const { home } = instance;
  mkdirSync(home.relayLog, { recursive: true });
  mkdirSync(home.relayAuthorities, { recursive: true });
  const input = new PassThrough();
  const output = new PassThrough();
  let states = "";
  input.on("data", (chunk) => states += chunk);
  relayChild(instance, new LoginRefresh(), log).attend?.(input, output);
  const entry: Entry = {
    time: new Date().toISOString(),
    session: null,
    worker: null,
    method: "GET",
    path: "/1",
    status: 200,
    ms: 1,
    bytesUp: 0,
    bytesDown: 0,
  };
  output.write(lineOf(entry) + lineOf(entry));
  await waitFor(() => told.length >= 2, { for: "it", timeoutMs: 5000 });
  await sleep(1200);
  assert.is(told.length, 2, told.join("\n"));
  assert.is(states, "");
  rmdirSync(home.relayLog);
  rmdirSync(home.relayAuthorities);
  output.write(lineOf({ ...entry, path: "/2" }));
  await waitFor(() => existsSync(home.relayLog) && states !== "", {
    for: "both",
    timeoutMs: 4000,
  });
  assert.match(readFileSync(home.relayLog, "utf8"), '"path":"/2"');
  input.destroy();
  output.destroy();
  await sleep(200);
  end();
});

test.run();
