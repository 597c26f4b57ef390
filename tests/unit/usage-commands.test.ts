// claudy usage and claudy budget.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { homePaths } from "../../lib/instance/paths.ts";
import { writeSession } from "../../lib/instance/session-record.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";
import { dayAfter, dayOf } from "../../lib/usage/days.ts";
import { openLedger } from "../../lib/usage/ledger.ts";
import { Records, type UsageRecord } from "../../lib/usage/records.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { runMain } from "../helper/run-main.ts";

interface Context {
  home: ReturnType<typeof homePaths>;
  instance: Parameters<typeof openLedger>[0];
  run: (...argv: string[]) => ReturnType<typeof runMain>;
}

const test = suite<Context>("usage-commands");

test.before.each((context) => {
  const home = homePaths(mkdtempSync(join(tmpdir(), "usage-commands-")));
  const owner = {
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
  };
  context.home = home;
  context.instance = { home, owner, prefix: "hal9000" };
  ensureHome(context.instance);
  const time = new Date().toISOString();
  writeSession(context.instance, {
    version: 1,
    name: "shop",
    project: "/p/shop",
    createdAt: time,
    usedAt: time,
  });
  context.run = (...argv) =>
    runMain(claudy, argv, {
      env: { HAL9000_HOME: home.home, HOME: home.home },
    });
});

test.after.each(({ home }) => {
  rmSync(home.home, { recursive: true });
});

const today = dayOf(Date.now());

function add(
  { instance }: Context,
  ...records: Partial<UsageRecord>[]
): void {
  const kept = new Records(instance, () => {});
  for (const record of records) {
    kept.add({
      at: new Date().toISOString(),
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
      cost: 1_500_000,
      unpriced: 0,
      ...record,
    });
  }
}

test("usage sums by session, project or day, with what has no price", async (context) => {
  const { run } = context;
  add(
    context,
    {},
    { status: 429, input: 0, output: 0, cacheRead: 0, cacheWrite: 0, cost: 0 },
    { session: "api", project: "/p/api", model: "m", cost: 0, unpriced: 370 },
    { session: "api", project: "/p/api", day: dayAfter(today, -3) },
    { day: dayAfter(today, -7) },
  );
  const table = (await run("usage")).stdout.split("\n")
    .map((line) => line.split(/ {2,}/));
  assert.equal(table.slice(0, 4), [
    [
      ...["SESSION", "REQUESTS", "ERRORS", "INPUT", "OUTPUT", "CACHE WRITE"],
      ...["CACHE READ", "COST"],
    ],
    ["api", "2", "0", "20", "40", "80", "600", "over 1.50 USD"],
    ["shop", "2", "1 (429: 1)", "10", "20", "40", "300", "1.50 USD"],
    ["total", "4", "1 (429: 1)", "30", "60", "120", "900", "over 3.00 USD"],
  ]);
  const names = async (...argv: string[]) =>
    JSON.parse((await run("usage", "--json", ...argv)).stdout).sums
      .map(({ name, costUsd }: { name: string; costUsd: number | null }) =>
        `${name} ${costUsd}`
      );
  assert.equal(await names("--by", "project"), ["/p/api 1.5", "/p/shop 1.5"]);
  assert.equal(await names("--by", "day", "--since", "8d"), [
    `${dayAfter(today, -7)} 1.5`,
    `${dayAfter(today, -3)} 1.5`,
    `${today} 1.5`,
  ]);
  assert.equal(await names("--since", today), ["shop 1.5", "api null"]);
  const shown = await run("usage");
  assert.match(
    shown.stderr,
    "use the relay are counted. Prices of 2026-",
  );
});

test("usage says so when nothing was counted, and refuses wrong options", async ({ run, home }) => {
  const empty = await run("usage");
  assert.is(empty.code, 0);
  assert.is(empty.stdout, "");
  assert.match(empty.stderr, /Nothing was counted since .*\n.*use the relay/);
  for (
    const [argv, message] of [
      [["--by", "model"], 'Unknown value of --by: "model"'],
      [["--since", "0d"], 'Not a date or a number of days: "0d"'],
      [["--since", "2026-02-30"], "Not a date"],
      [["--since", "soon"], "Not a date"],
    ] as const
  ) {
    const { code, stderr } = await run("usage", ...argv);
    assert.is(code, 2, argv.join(" "));
    assert.match(stderr, message);
  }
  writeFileSync(home.pricesFile, "[]");
  assert.match((await run("usage")).stderr, "not a valid table of prices");
});

test("usage shows the account's limits", async ({ run, instance }) => {
  const ledger = openLedger(instance, () => {}, { env: {} });
  const at = Date.now();
  ledger.event({
    kind: "windows",
    at,
    windows: [{ name: "5h", percent: 42, resetsAt: at + 3600_000 }],
  });
  ledger.event({
    kind: "limit",
    session: "shop",
    project: "/p/shop",
    at,
    resetsAt: at + 3600_000,
    claim: "five_hour",
  });
  ledger.state();
  const { stdout } = await run("usage");
  assert.match(
    stdout,
    /Limit of 5h: 42 % used, resets at .*\d\d:\d\d\nLimit reached, resets at .*\d\d:\d\d\n$/,
  );
  const shown = JSON.parse((await run("usage", "--json")).stdout);
  assert.is(shown.limit.claim, "five_hour");
});

test("budgets are set, shown, raised and removed", async (context) => {
  const { run, home } = context;
  mkdirSync(join(home.home, "a b"));
  add(context, {});
  const set = await run("budget", "set", "--session", "shop", "--cost", "1.50");
  assert.is(set.code, 0, set.stderr);
  assert.match(
    set.stdout,
    /session shop +1\.50 USD a day +1\.50 USD +refused +\d{4}-/,
  );
  await run("budget", "set", "--session", "shop", "--cost", "1.8");
  await run("budget", "set", "--all", "--tokens", "1000", "--per", "week");
  await run(
    "budget",
    "set",
    "--project",
    join(home.home, "a b"),
    "--cost",
    "5",
  );
  const { budgets } = JSON.parse((await run("budget", "--json")).stdout);
  const { stdout } = await run("budget");
  assert.match(stdout, /session shop +1\.80 USD a day +1\.50 USD +near /);
  assert.match(stdout, /all sessions +1000 tokens a week +370 tokens +ok /);
  assert.match(stdout, /project .*a b +5\.00 USD a day +0\.00 USD +ok /);
  assert.is(budgets.length, 3);
  assert.is((await run("budget", "rm", "--all")).code, 0);
  const again = await run("budget", "rm", "--all");
  assert.is(again.code, 4);
  assert.match(again.stderr, "There is no budget for all sessions");
});

test("budget refuses what is not clear", async ({ run }) => {
  for (
    const [argv, message] of [
      [["--cost", "5"], "one of --session, --project and --all"],
      [["--all", "--session", "shop", "--cost", "5"], "one of --session"],
      [["--all"], "either --tokens or --cost"],
      [["--all", "--cost", "5", "--tokens", "5"], "either --tokens or --cost"],
      [["--all", "--cost", "five"], "Not a number: --cost five"],
      [["--all", "--cost=-5"], "Not a number: --cost -5"],
      [["--all", "--tokens", "1.5"], "Not a number: --tokens 1.5"],
      [["--all", "--cost", "5", "--per", "month"], "Unknown value of --per"],
      [["--project", "/nonexistent", "--cost", "5"], "There is no directory"],
      [["--session", "nowhere", "--cost", "5"], "nowhere"],
    ] as const
  ) {
    const { code, stderr } = await run("budget", "set", ...argv);
    assert.ok(code === 2 || code === 4, argv.join(" "));
    assert.match(stderr, message);
  }
  assert.match((await run("budget")).stderr, "There are no budgets");
});

test("a paused session is shown, and released by its name", async ({ run, instance }) => {
  const ledger = openLedger(instance, () => {}, { env: {} });
  ledger.event({
    kind: "runaway",
    session: "shop",
    project: "/p/shop",
    at: Date.now(),
    maxPerMinute: 9,
  });
  assert.match(
    (await run("budget")).stdout,
    "more than 9 requests in a minute",
  );
  assert.is((await run("budget", "release", "shop")).stdout, "shop\n");
  assert.equal(ledger.state().paused, {});
  const again = await run("budget", "release", "shop");
  assert.match(again.stderr, 'Session "shop" is not paused');
});

test.run();
