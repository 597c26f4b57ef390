// What is kept of the meter's notes, and what follows from it: costs, budgets, limits.

import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";
import {
  type Budget,
  moveBudgets,
  readBudgets,
  removeBudgets,
  setBudget,
} from "../../lib/usage/budgets.ts";
import { dayAfter, dayOf, mondayOf } from "../../lib/usage/days.ts";
import { openLedger } from "../../lib/usage/ledger.ts";
import type { Note, ReplyNote } from "../../lib/usage/notes.ts";
import { release } from "../../lib/usage/paused.ts";
import { costOf, readPrices } from "../../lib/usage/prices.ts";
import {
  readRows,
  Records,
  type UsageRecord,
} from "../../lib/usage/records.ts";
import {
  alertsOf,
  limitedUntil,
  NewNotices,
  readStatus,
  StatusFile,
} from "../../lib/usage/status.ts";

interface Context {
  instance: {
    home: ReturnType<typeof homePaths>;
    owner: { uid: number; gid: number };
    prefix: string;
  };
  log: string[];
}

const test = suite<Context>("usage-ledger");

test.before.each((context) => {
  const home = homePaths(mkdtempSync(join(tmpdir(), "usage-home-")));
  const owner = {
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
  };
  context.instance = { home, owner, prefix: "hal9000" };
  context.log = [];
  ensureHome(context.instance);
});

test.after.each(({ instance }) => {
  rmSync(instance.home.home, { recursive: true });
});

/** A Wednesday, at noon. */
const noon = new Date(2026, 10, 25, 12).getTime();
const today = "2026-11-25";

const record = (change: Partial<UsageRecord> = {}): UsageRecord => ({
  at: new Date(noon).toISOString(),
  day: today,
  session: "shop",
  project: "/p/shop",
  model: "claude-opus-5-5",
  status: 200,
  requests: 1,
  input: 10,
  output: 20,
  cacheRead: 300,
  cacheWrite: 40,
  cost: 1000,
  unpriced: 0,
  ...change,
});

const note = (change: Partial<ReplyNote> = {}): ReplyNote => ({
  kind: "reply",
  session: "shop",
  project: "/p/shop",
  at: noon,
  startedAt: noon - 1000,
  status: 200,
  requests: 1,
  model: "claude-opus-5-5",
  promptTokens: 1_000_000,
  input: 1_000_000,
  output: 0,
  cacheRead: 0,
  cacheWrite: 0,
  cacheWriteHour: 0,
  ...change,
});

const requestsIn = (home: Context["instance"]["home"]) =>
  readRows(home).reduce((sum, { requests }) => sum + requests, 0);

function opened({ instance, log }: Context, start = noon) {
  let now = start;
  const ledger = openLedger(instance, (line) => void log.push(line), {
    now: () => now,
    env: { HAL9000_HOME: instance.home.home },
  });
  ledger.state();
  return {
    /** Returns the state as it is after these. */
    tell: (...notes: Note[]) => {
      for (const each of notes) ledger.event(each);
      return ledger.state();
    },
    wait: (ms: number) => {
      now += ms;
      return ledger.state();
    },
  };
}

const budget = (change: Partial<Budget> = {}): Budget => ({
  session: "shop",
  project: null,
  per: "day",
  measure: "cost",
  limit: 5,
  ...change,
});

test("increments are summed by day, session, project and model", ({ instance, log }) => {
  const records = new Records(instance, (line) => void log.push(line));
  records.add(record());
  records.add(record({ requests: 0, input: 0, cacheRead: 0, output: 5 }));
  records.add(record({ status: 429, output: 0 }));
  records.add(record({ session: "api" }));
  const rows = readRows(instance.home);
  assert.is(rows.length, 2);
  assert.equal(rows[0], {
    day: today,
    session: "shop",
    project: "/p/shop",
    model: "claude-opus-5-5",
    requests: 2,
    input: 20,
    output: 25,
    cacheRead: 600,
    cacheWrite: 120,
    cost: 3000,
    unpriced: 0,
    errors: { 429: 1 },
  });
  assert.equal([...records.rows], rows);
  const { home } = instance;
  const [file = ""] = readdirSync(home.usage).filter((name) =>
    name.startsWith("records")
  );
  assert.is(statSync(join(home.usage, file)).mode & 0o777, 0o600);
  assert.is(statSync(home.usage).mode & 0o777, 0o700);
});

test("a kill at any moment loses nothing and counts nothing twice", ({ instance, log }) => {
  const { home } = instance;
  const say = (line: string) => void log.push(line);
  let total = 0;
  // Files of two records, so that they are often added to the sums.
  for (let round = 0; round < 6; round++) {
    const records = new Records(instance, say, 400);
    assert.is(requestsIn(home), total, `start ${round}`);
    for (let each = 0; each <= round; each++, total++) records.add(record());
    assert.is(requestsIn(home), total, `after ${round}`);
    // Nothing is closed: the process is gone.
  }
  const records = new Records(instance, say);
  records.add(record());
  total++;
  // Killed in the middle of an append.
  const last = readdirSync(home.usage).find((name) => /^records/.test(name));
  const path = join(home.usage, last ?? "");
  appendFileSync(path, JSON.stringify(record()).slice(0, 50));
  const before = join(home.home, "before");
  cpSync(path, before);
  new Records(instance, say).add(record());
  total++;
  assert.is(requestsIn(home), total);
  // Killed after the sums were written, before the file was removed.
  cpSync(before, path);
  assert.is(requestsIn(home), total);
  new Records(instance, say);
  assert.is(existsSync(path), false);
  assert.is(requestsIn(home), total);
  assert.equal(log, []);
});

test("days and rows are bounded", ({ instance, log }) => {
  const records = new Records(instance, (line) => void log.push(line), 2000);
  for (let days = 0; days < 450; days++) {
    records.add(record({ day: dayAfter("2025-01-01", days) }));
  }
  new Records(instance, (line) => void log.push(line));
  const days = readRows(instance.home).map(({ day }) => day).sort();
  assert.is(days.length, 400);
  assert.is(days.at(-1), dayAfter("2025-01-01", 449));
  const files = readdirSync(instance.home.usage);
  assert.is(files.filter((name) => /^records/.test(name)).length, 0);
});

test("sessions of old days are summed if there are too many", ({ instance }) => {
  const before = dayAfter(today, -1);
  const { at: _, status: __, ...row } = record();
  const rowsOf = (day: string) =>
    Array.from({ length: 12_000 }, (_, at) => (
      { ...row, day, session: `run-${at}`, errors: { 500: 1 } }
    ));
  const sums = [...rowsOf(before), ...rowsOf(today)];
  writeFileSync(
    instance.home.usageSums,
    JSON.stringify({ version: 1, through: 0, rows: sums }),
  );
  new Records(instance, () => {});
  const rows = readRows(instance.home);
  assert.is(rows.length, 12_001);
  const [others] = rows.filter(({ day }) => day === before);
  assert.is(others?.session, "");
  assert.is(others?.requests, 12_000);
  assert.equal(others?.errors, { 500: 12_000 });
});

test("what cannot be saved is reported once, and still counts", (context) => {
  const { instance, log } = context;
  const { home } = instance;
  setBudget(instance, budget());
  rmSync(home.usage, { recursive: true });
  writeFileSync(home.usage, "");
  const { tell, wait } = opened(context);
  for (let each = 0; each < 5; each++) {
    tell(note());
    wait(5000);
  }
  assert.is(Object.keys(wait(0).sessions).length, 1);
  const saved = log.filter((line) => line.includes("usage is not saved"));
  assert.is(saved.length, 1);
  assert.ok(log.length < 8, log.join("\n"));
  rmSync(home.usage);
  mkdirSync(home.usage);
  tell(note());
  assert.is(requestsIn(home), 1);
});

test("damaged sums are set aside and reported", ({ instance, log }) => {
  const { usageSums } = instance.home;
  writeFileSync(usageSums, "{");
  const records = new Records(instance, (line) => void log.push(line));
  records.add(record());
  assert.match(log.join(), "is damaged; it was moved to");
  assert.is(readFileSync(`${usageSums}.damaged`, "utf8"), "{");
  assert.is(requestsIn(instance.home), 1);
});

test("days and weeks", () => {
  assert.is(dayAfter("2026-12-31", 1), "2027-01-01");
  assert.is(dayAfter("2026-03-29", -1), "2026-03-28");
  assert.is(mondayOf("2026-11-29"), "2026-11-23");
  assert.is(mondayOf("2026-11-23"), "2026-11-23");
  assert.is(dayOf(noon), today);
});

test("costs follow the table of prices, whose models the user can replace", ({ instance }) => {
  const { home } = instance;
  const figures = {
    model: "claude-opus-5-5",
    input: 1_000_000,
    output: 1_000_000,
    cacheRead: 1_000_000,
    cacheWrite: 1_000_000,
    cacheWriteHour: 400_000,
  };
  const usd = (model: string, promptTokens = 0) => {
    const cost = costOf(
      readPrices(home),
      { ...figures, model },
      promptTokens,
    );
    return cost === undefined ? undefined : Math.round(cost) / 1e6;
  };
  assert.is(usd("claude-opus-5-5"), 30.4); // 4 + 20 + 0.2 + 0.6 * 5 + 0.4 * 8
  assert.is(usd("claude-opus-5-5[1m]"), usd("claude-opus-5-5"));
  assert.is(usd("claude-haiku-4-5-20251001"), 7.65);
  assert.is(usd("claude-haiku-5-5", 100_000), 0.765);
  assert.is(usd("claude-haiku-5-5", 100_001), 3.825);
  assert.is(usd("claude-unheard-of"), undefined);
  assert.is(usd("constructor"), undefined);
  const rates = {
    input: 1,
    output: 1,
    cacheWrite: 1,
    cacheWriteHour: 1,
    cacheRead: 1,
  };
  writeFileSync(
    home.pricesFile,
    JSON.stringify({
      date: "2026-11-01",
      usdPerMillionTokens: { "claude-unheard-of": rates },
    }),
  );
  assert.is(usd("claude-unheard-of"), 4);
  assert.is(usd("claude-haiku-5-5", 100_000), 0.765);
  writeFileSync(home.pricesFile, "{}");
  assert.throws(() => readPrices(home), /is not a valid table of prices/);
});

test("an unknown model has no cost, which is not zero", (context) => {
  const { tell, wait } = opened(context);
  tell(note({ model: "claude-unheard-of" }), note({ session: "api" }));
  wait(1000); // it is written once a second
  const [row] = readRows(context.instance.home);
  assert.is(row?.cost, 0);
  assert.is(row?.unpriced, 1_000_000);
  assert.is(readStatus(context.instance)?.today["shop"]?.cost, null);
  assert.is(readStatus(context.instance)?.today["api"]?.cost, 4);
});

test("notes that are not valid are left out", (context) => {
  const { tell } = opened(context);
  const wrong = [
    null,
    "x",
    { kind: "reply" },
    { ...note(), input: -1 },
    { ...note(), input: 0.5 },
    { ...note(), output: 1e12 },
    { ...note(), requests: 7 },
    { ...note(), model: "\x1b[2J" },
    { ...note(), session: "" },
    { ...note(), kind: "other" },
  ];
  tell(...wrong as Note[]);
  assert.equal(readRows(context.instance.home), []);
  assert.equal(context.log, []);
});

test("a spent budget refuses until it is raised, with a warning before", (context) => {
  const { instance, log } = context;
  setBudget(instance, budget({ limit: 10 }));
  const { tell, wait } = opened(context);
  assert.equal(tell(note()).sessions, {});
  assert.equal(log, []);
  tell(note());
  assert.equal(log, [
    "80 % of the budget of session shop, 10.00 USD a day, is spent",
  ]);
  const sentence = "The budget of session shop, 10.00 USD a day, is spent; " +
    "raise it with: claudy budget set --session shop --cost 20";
  assert.equal(tell(note()).sessions, { shop: sentence });
  assert.is(log.length, 2);
  assert.is(log[1], sentence);
  assert.equal(
    readStatus(instance)?.notices.map(({ kind, session }) => [kind, session]),
    [["near", "shop"], ["spent", "shop"]],
  );
  // Another process knows it, and does not report it again.
  assert.equal(opened(context).wait(0).sessions, { shop: sentence });
  assert.is(log.length, 2);
  setBudget(instance, budget({ limit: 20 }));
  assert.equal(wait(0).sessions, {});
  setBudget(instance, budget({ limit: 12 }));
  assert.is(Object.keys(wait(0).sessions).length, 1);
  assert.equal(wait(24 * 3600 * 1000).sessions, {});
});

test("budgets of a project, of all, of tokens, and of a week", (context) => {
  const { instance } = context;
  setBudget(instance, budget({ session: null, project: "/p/a b" }));
  setBudget(
    instance,
    budget({ session: null, measure: "tokens", limit: 3_000_000, per: "week" }),
  );
  const monday = new Date(2026, 10, 23, 9).getTime();
  const { tell, wait } = opened(context, monday);
  tell(note({ at: monday, session: "x", project: "/p/a b" }));
  const spent = tell(note({ at: monday, session: "y", project: "/p/a b" }));
  assert.equal(spent.projects, {
    "/p/a b": "The budget of project /p/a b, 5.00 USD a day, is spent; " +
      "raise it with: claudy budget set --project '/p/a b' --cost 10",
  });
  assert.is(spent.all, undefined);
  assert.equal(wait(24 * 3600 * 1000).projects, {});
  assert.is(
    tell(note({ at: noon, session: "z" })).all,
    "The budget of all sessions, 3000000 tokens a week, is spent; " +
      "raise it with: claudy budget set --all --tokens 6000000 --per week",
  );
  assert.is(wait(6 * 24 * 3600 * 1000).all, undefined);
});

test("budgets are replaced, moved and removed", ({ instance }) => {
  setBudget(instance, budget());
  setBudget(instance, budget({ limit: 7 }));
  setBudget(instance, budget({ per: "week" }));
  setBudget(instance, budget({ session: "other" }));
  assert.is(readBudgets(instance.home).length, 3);
  moveBudgets(instance, "shop", "store");
  const whose = { session: "store", project: null };
  assert.is(removeBudgets(instance, { ...whose, per: "week" }).length, 1);
  assert.equal(removeBudgets(instance, whose), [
    budget({ session: "store", limit: 7 }),
  ]);
  assert.equal(removeBudgets(instance, whose), []);
  assert.is(readBudgets(instance.home).length, 1);
});

test("budgets that cannot be read refuse everything", (context) => {
  const { home } = context.instance;
  const { wait } = opened(context);
  writeFileSync(home.budgets, "{");
  assert.match(wait(0).all ?? "", /budgets\.json cannot be read/);
  assert.is(context.log.length, 1);
  rmSync(home.budgets);
  assert.is(wait(0).all, undefined);
});

test("a paused session stays paused until it is released", (context) => {
  const { instance } = context;
  const runaway: Note = {
    kind: "runaway",
    session: "shop",
    project: "/p/shop",
    at: noon,
    maxPerMinute: 200,
  };
  const { tell, wait } = opened(context);
  assert.is(wait(0).maxPerMinute, 200);
  assert.match(tell(runaway).paused["shop"] ?? "", /budget release shop$/);
  assert.is(readStatus(instance)?.notices[0]?.kind, "paused");
  assert.is(Object.keys(opened(context).wait(0).paused).length, 1);
  release(instance, "shop");
  assert.equal(wait(0).paused, {});
  writeFileSync(instance.home.conf, "MAX_REQUESTS_PER_MINUTE=9\n");
  assert.is(wait(0).maxPerMinute, 9);
});

test("a session is limited until the limit resets, or it is answered", (context) => {
  const { instance } = context;
  const { tell } = opened(context);
  const limit = (session: string, resetsAt: number): Note => ({
    kind: "limit",
    session,
    project: "/p",
    at: noon,
    resetsAt,
    claim: "five_hour",
  });
  const until = (session: string, now = noon) =>
    limitedUntil(readStatus(instance), session, now);
  tell(limit("shop", noon + 90_000), limit("api", noon + 90_000));
  assert.is(until("shop"), noon + 90_000);
  assert.is(until("shop", noon + 90_000), undefined);
  assert.is(until("other"), undefined);
  assert.equal(context.log, [
    "The account's limit (five hour) is reached; it resets at 12:01",
  ]);
  // An earlier request, such as one of another model, shows nothing.
  tell(note({ startedAt: noon - 1 }));
  assert.is(until("shop"), noon + 90_000);
  tell(note({ startedAt: noon + 1 }));
  assert.is(until("shop"), undefined);
  assert.is(until("api"), noon + 90_000);
});

test("a limit of seconds is not reported, and ends with an answer", (context) => {
  const { instance } = context;
  const { tell, wait } = opened(context);
  tell({
    kind: "limit",
    session: "shop",
    project: "/p",
    at: noon,
    resetsAt: noon + 30_000,
    claim: "",
  });
  assert.is(readStatus(instance)?.limit?.resetsAt, noon + 30_000);
  // The CLI waits that long by itself.
  assert.equal(context.log, []);
  tell(note({ startedAt: noon + 1 }));
  wait(1000);
  assert.equal(readStatus(instance)?.limited, {});
  assert.is(readStatus(instance)?.limit, null);
});

test("notices are new once, and the status has alerts of the present", (context) => {
  const { instance } = context;
  setBudget(instance, budget({ limit: 5 }));
  const { tell, wait } = opened(context);
  const file = new StatusFile(instance);
  const notices = new NewNotices();
  assert.equal(notices.from(file.read()), []);
  tell(note());
  assert.equal(
    notices.from(file.read()).map(({ text }) => text),
    ["80 % of the budget of session shop, 5.00 USD a day, is spent"],
  );
  assert.equal(notices.from(file.read()), []);
  assert.equal(alertsOf(file.read(), noon), [
    "Budget of session shop: 80 % spent",
  ]);
  tell({
    kind: "limit",
    session: "shop",
    project: "/p",
    at: noon,
    resetsAt: noon + 90_000,
    claim: "",
  });
  wait(1000);
  assert.equal(notices.from(file.read()).map(({ kind }) => kind), ["limit"]);
  assert.is(alertsOf(file.read(), noon)[0], "Limit reached, resets at 12:01");
  assert.is(alertsOf(file.read(), noon + 90_000).length, 1);
  assert.equal(alertsOf(file.read(), noon + 24 * 3600 * 1000), []);
  // Those of the past are not new for who begins to look.
  assert.equal(new NewNotices().from(file.read()), []);
});

test.run();
