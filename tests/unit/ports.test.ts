import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseListening } from "../../lib/listeners.ts";
import { ownerOf } from "../../lib/owned.ts";
import { homePaths } from "../../lib/paths.ts";
import { freePorts, portBase, reservePorts } from "../../lib/port-range.ts";
import { contextText } from "../../lib/session-context.ts";

/** Two names that lead to the same range. */
function colliding(): [string, string] {
  const seen = new Map<number, string>();
  for (let count = 0;; count++) {
    const name = `session-${count}`;
    const base = portBase(name, 0);
    const other = seen.get(base);
    if (other !== undefined) return [other, name];
    seen.set(base, name);
  }
}

test("portBase() is the same for a name, within the ports that are ours", () => {
  for (let count = 0; count < 1000; count++) {
    const base = portBase(`s${count}`, count);
    assert.is(base, portBase(`s${count}`, count));
    assert.ok(base >= 20_000 && base + 20 <= 30_000 && base % 20 === 0);
  }
});

test("reservePorts() gives two names with one range two", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-ports-"));
  const home = homePaths(root);
  const instance = { home, owner: ownerOf(root) };
  mkdirSync(home.ports, { recursive: true });
  mkdirSync(home.kept, { recursive: true });
  const [one, two] = colliding();
  const add = (name: string) => writeFileSync(home.session(name), "{}");
  add(one);
  add(two);
  const first = reservePorts(instance, one);
  const second = reservePorts(instance, two);
  assert.is(first, portBase(one, 0));
  assert.is(second, portBase(two, 1));
  assert.is(reservePorts(instance, two), second);
  // Of a session that has gone, the range is free again.
  freePorts(instance, first);
  assert.is(reservePorts(instance, two), first);
  rmSync(home.session(two));
  assert.is(reservePorts(instance, one), first);
  rmSync(root, { recursive: true });
});

test("contextText() says what there is, and only that", () => {
  const limits = { memoryBytes: 4 * 1024 ** 3, cpus: 2, pids: 100 };
  const text = contextText({ limits, chromadbPort: 8000, portBase: 20_040 });
  assert.match(text, "4 GiB of memory, 2 CPUs, 100 processes");
  assert.match(text, "http://localhost:8000");
  assert.match(text, "Ports 20040 to 20059 are yours");
  const alone = contextText({
    limits: { memoryBytes: 0, cpus: 0, pids: 0 },
    chromadbPort: 8000,
    portBase: undefined,
  });
  assert.match(alone, "Limits: none.");
  assert.not.match(alone, "localhost");
});

test("parseListening() finds what listens, with its address", () => {
  const table = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1",
    "   1: 00000000:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1",
    "   2: 0100007F:1F40 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 79 1",
  ].join("\n");
  assert.equal(parseListening(table), [
    { port: 8000, address: "localhost", inode: "77" },
    { port: 3000, address: "every address", inode: "78" },
  ]);
});

test.run();
