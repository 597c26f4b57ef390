import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { ensureDirectory, ownerOf, writeAtomic } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  closeRecord,
  readEndedRecords,
  readRecord,
  readRecords,
  removeRecord,
  type WorkerRecord,
  writeRecord,
} from "../../lib/instance/record.ts";

type Home = Parameters<typeof writeRecord>[0];
const test = suite<{ instance: Home; said: string[] }>("record");

const record: WorkerRecord = {
  version: 1,
  worker: "x",
  container: "id",
  session: null,
  project: { path: "/p", uid: 1, gid: 1 },
  image: "repo:worker",
  born: "cold",
  home: "workers/x-0123",
  ephemeral: false,
  secrets: null,
  memoryBytes: null,
  oomKilledAt: null,
  createdAt: "2026-01-26T00:00:00.000Z",
};

test.before.each((context) => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-record-"));
  context.instance = { home: homePaths(root), owner: ownerOf(root) };
  context.said = [];
  ensureDirectory(context.instance.home.sessions, 0o700, ownerOf(root));
});

test.after.each(({ instance }) =>
  rmSync(instance.home.home, { recursive: true })
);

test("sorts ended records newest first, regardless of their names", ({ instance }) => {
  const ends = { b: "11:00", c: "10:00", a: "09:00", d: "12:00" };
  for (const [worker, time] of Object.entries(ends)) {
    const end = { at: `2026-01-26T${time}:00.000Z`, exitCode: 0 };
    closeRecord(instance, { ...record, worker }, end);
  }
  const names = readEndedRecords(instance).map(({ worker }) => worker);
  assert.equal(names, ["d", "b", "c", "a"]);
});

test("keeps the records of the last hundred ended workers", ({ instance }) => {
  const { ended } = instance.home;
  for (let count = 0; count <= 100; count++) {
    const at = new Date(Date.UTC(2026, 0, 1, 0, count)).toISOString();
    const end = { at, exitCode: null };
    closeRecord(instance, { ...record, worker: `w${count}` }, end);
    const seconds = Date.parse(at) / 1000;
    utimesSync(join(ended, `w${count}.json`), seconds, seconds);
    if (count === 99) assert.is(readdirSync(ended).length, 100);
  }
  const names = readEndedRecords(instance).map(({ worker }) => worker);
  assert.is(names.length, 100);
  assert.is(names[0], "w100");
  assert.is(names.at(-1), "w1");
});

test("an ended worker has no claim and no record of a live one", ({ instance }) => {
  const { home } = instance;
  ensureDirectory(home.pool, 0o700, instance.owner);
  ensureDirectory(home.claims, 0o700, instance.owner);
  writeFileSync(home.claim("id"), "");
  writeRecord(instance, record);
  const at = "2026-01-26T10:00:00.000Z";
  closeRecord(instance, record, { at, exitCode: 1 });
  assert.equal(readdirSync(home.claims), []);
  assert.equal(readRecords(instance), []);
  assert.is(readEndedRecords(instance)[0]?.end.exitCode, 1);
});

test("closing the record of a missing worker keeps its recorded end", ({ instance }) => {
  const at = "2026-01-26T10:00:00.000Z";
  const codes = () => readEndedRecords(instance).map(({ end }) => end.exitCode);
  closeRecord(instance, record, { at, exitCode: 143 });
  closeRecord(instance, record, { at, exitCode: null });
  assert.equal(codes(), [143]);
  // A new worker with the same name.
  closeRecord(instance, { ...record, container: "2" }, { at, exitCode: null });
  assert.equal(codes(), [null]);
});

test("reads a record as written, with a file only for its owner", ({ instance, said }) => {
  writeRecord(instance, record);
  const log = (line: string) => said.push(line);
  assert.equal(readRecord(instance, "x", log), record);
  assert.is(statSync(instance.home.record("x")).mode & 0o777, 0o600);
  assert.equal(readdirSync(instance.home.sessions), ["x.json"]);
  removeRecord(instance, "x");
  assert.is(readRecord(instance, "x", log), undefined);
  assert.equal(said, []);
});

const damaged = {
  "half a file": '{"version":1,"wor',
  "another version": JSON.stringify({ ...record, version: 2 }),
  "the directory of all homes as home": JSON.stringify({
    ...record,
    home: "workers/..",
  }),
  "a home outside of HAL9000_HOME": JSON.stringify({
    ...record,
    home: "workers/../..",
  }),
};

for (const [what, text] of Object.entries(damaged)) {
  test(`moves ${what} away with a message, and reads the other records`, ({ instance, said }) => {
    writeRecord(instance, record);
    writeFileSync(instance.home.record("bad"), text);
    const records = readRecords(instance, (line) => said.push(line));
    assert.equal(records, [record]);
    assert.match(said[0] ?? "", /bad\.json is damaged; it was moved to/);
    const aside = readdirSync(join(instance.home.sessions, "damaged"));
    assert.is(aside.length, 1);
  });
}

test("writeAtomic() keeps the old text and no temporary file when it fails", ({ instance }) => {
  const { home: { sessions }, owner } = instance;
  const path = join(sessions, "kept");
  writeAtomic(path, "old", owner);
  // Fails after the temporary file was opened.
  assert.throws(() => writeAtomic(path, 7 as unknown as string, owner));
  assert.is(readFileSync(path, "utf8"), "old");
  // Fails when the temporary file is renamed.
  const directory = join(sessions, "directory");
  ensureDirectory(directory, 0o700, owner);
  assert.throws(() => writeAtomic(directory, "text", owner));
  assert.equal(readdirSync(sessions).sort(), ["directory", "kept"]);
});

test.run();
