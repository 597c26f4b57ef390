// claudy usage and claudy budget: what sessions use of the API, and what they may use.

import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import type { CAC, Command } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import type { Instance } from "../instance/instance.ts";
import { openHome } from "../instance/open.ts";
import { Failure } from "../std/errors.ts";
import { didYouMean } from "../std/nearest.ts";
import { columns } from "../std/text.ts";
import {
  type Budget,
  budgetStates,
  costText,
  limitText,
  periods,
  readBudgets,
  removeBudgets,
  setBudget,
  usdText,
  type Whose,
  whoseText,
} from "../usage/budgets.ts";
import { clockText, dayAfter, dayOf } from "../usage/days.ts";
import { readPaused, release } from "../usage/paused.ts";
import { readPrices } from "../usage/prices.ts";
import { readRows } from "../usage/records.ts";
import {
  type Grouping,
  groupings,
  type Sum,
  sumOf,
  usageSums,
} from "../usage/report.ts";
import { readStatus, type Status } from "../usage/status.ts";
import { namedSession } from "./workers.ts";

interface Options {
  by?: unknown;
  since?: unknown;
  session?: unknown;
  project?: unknown;
  all?: boolean;
  tokens?: unknown;
  cost?: unknown;
  per?: unknown;
  json?: boolean;
}

const onlyRelay = "Only requests of sessions that use the relay are counted";

export function usageCommand(io: Io): CAC {
  const cli = command("claudy usage");
  cli.command(
    "",
    "Show what sessions used of the API, and the account's limits",
  )
    .option("--by <what>", "Sum by session (default), project or day")
    .option(
      "--since <when>",
      "From a date such as 2026-11-28, or a number of days such as 7d (default: 7d)",
    )
    .option("--json", "Print it as JSON")
    .example("claudy usage --by day --since 30d")
    .action(async (options: Options) => {
      const instance = await openHome(io.env, io.log);
      const by = oneOf("--by", options.by, groupings) ?? "session";
      const since = sinceDay(options.since);
      const rows = readRows(instance.home);
      const sums = usageSums(rows, by, since);
      const total = sumOf("total", rows.filter(({ day }) => day >= since));
      const status = readStatus(instance);
      const limits = limitLines(status, Date.now());
      const { date } = readPrices(instance.home);
      io.answer(
        {
          since,
          by,
          sums,
          total,
          limit: limitOf(status, Date.now()),
          windows: status?.windows ?? [],
          prices: date,
        },
        sums.length === 0
          ? limits.join("\n")
          : [table(by, sums, total), ...limits].join("\n"),
        options.json,
      );
      if (sums.length === 0) io.log(`Nothing was counted since ${since}`);
      io.log(
        sums.length === 0 ? onlyRelay : `${onlyRelay}. Prices of ${date}`,
      );
    });
  return cli;
}

function table(by: Grouping, sums: Sum[], total: Sum): string {
  return columns([
    [
      ...[by.toUpperCase(), "REQUESTS", "ERRORS", "INPUT", "OUTPUT"],
      ...["CACHE WRITE", "CACHE READ", "COST"],
    ],
    ...[...sums, total].map((sum) => [
      sum.name === "" ? by === "session" ? "others" : "unknown" : sum.name,
      String(sum.requests),
      errorsText(sum.errors),
      ...[sum.input, sum.output, sum.cacheWrite, sum.cacheRead].map(String),
      costText(sum.costUsd, sum.unpricedTokens),
    ]),
  ]);
}

/** 3 (429: 2, 529: 1) */
function errorsText(errors: Record<string, number>): string {
  const entries = Object.entries(errors);
  if (entries.length === 0) return "0";
  const sum = entries.reduce((all, [, count]) => all + count, 0);
  const each = entries.map(([status, count]) => `${status}: ${count}`);
  return `${sum} (${each.join(", ")})`;
}

/** The limit that was reached and has not reset. */
function limitOf(status: Status | undefined, now: number) {
  const limit = status?.limit;
  return limit && limit.resetsAt > now
    ? { claim: limit.claim, resetsAt: new Date(limit.resetsAt).toISOString() }
    : null;
}

function limitLines(status: Status | undefined, now: number): string[] {
  const limit = status?.limit;
  const windows = (status?.windows ?? [])
    .filter(({ resetsAt }) => resetsAt === null || resetsAt > now)
    .map(({ name, percent, resetsAt }) => {
      const reset = resetsAt === null
        ? ""
        : `, resets at ${clockText(resetsAt, now)}`;
      return `Limit of ${name}: ${percent} % used${reset}`;
    });
  const reached = limit && limit.resetsAt > now
    ? [`Limit reached, resets at ${clockText(limit.resetsAt, now)}`]
    : [];
  return [...windows, ...reached];
}

/** The first day. */
function sinceDay(value: unknown): string {
  const text = String(value ?? "7d");
  const today = dayOf(Date.now());
  const [, days] = /^(\d{1,4})d$/.exec(text) ?? [];
  if (days !== undefined && Number(days) > 0) {
    return dayAfter(today, 1 - Number(days));
  }
  const isDate = /^\d{4}-\d{2}-\d{2}$/.test(text) && dayAfter(text, 0) === text;
  if (isDate) return text;
  throw new Failure("usage", `Not a date or a number of days: "${text}"`, {
    hint: "For instance: --since 2026-11-28, or --since 7d",
  });
}

function oneOf<T extends string>(
  option: string,
  value: unknown,
  choices: readonly T[],
): T | undefined {
  if (value === undefined) return undefined;
  const found = choices.find((choice) => choice === value);
  if (found) return found;
  throw new Failure("usage", `Unknown value of ${option}: "${value}"`, {
    hint: `${didYouMean(String(value), choices)}Values: ${choices.join(", ")}`,
  });
}

export function budgetCommand(io: Io): CAC {
  const cli = command("claudy budget");

  cli.command("show", "Show the budgets and paused sessions (default)")
    .alias("!")
    .option("--json", "Print them as JSON")
    .action(async ({ json }: Options) => {
      showBudgets(io, await openHome(io.env, io.log), json);
    });

  scoped(
    cli.command("set", "Set what may be used in a day or a week"),
  )
    .option("--tokens <n>", "Number of tokens of all kinds")
    .option("--cost <usd>", "Cost in USD")
    .option("--per <period>", "day (default) or week")
    .option("--json", "Print the budgets as JSON")
    .example("claudy budget set --all --cost 20 --per week")
    .action(async (options: Options) => {
      const instance = await openHome(io.env, io.log);
      const budget: Budget = {
        ...whoseOf(io, instance, options),
        ...amountOf(options),
        per: oneOf("--per", options.per, periods) ?? "day",
      };
      setBudget(instance, budget);
      showBudgets(io, instance, options.json);
    });

  scoped(cli.command("rm", "Remove a budget"))
    .option(
      "--per <period>",
      "Remove only the budget for a day or a week (default: both)",
    )
    .option("--json", "Print the budgets that are left as JSON")
    .action(async (options: Options) => {
      const instance = await openHome(io.env, io.log);
      const whose = whoseOf(io, instance, options);
      const per = oneOf("--per", options.per, periods);
      if (removeBudgets(instance, { ...whose, per }).length === 0) {
        throw new Failure(
          "notFound",
          `There is no budget for ${whoseText(whose)}`,
          { hint: "See the budgets: claudy budget show" },
        );
      }
      showBudgets(io, instance, options.json);
    });

  cli.command(
    "release <name>",
    "Let a session go on that was paused because it sent too many requests",
  )
    .option("--json", "Print its name as JSON")
    .action(async (name: unknown, { json }: Options) => {
      const instance = await openHome(io.env, io.log);
      const paused = readPaused(instance).map(({ session }) => session);
      // Also one that has no session.
      const session = paused.find((each) => each === name) ??
        namedSession(io, instance, name).name;
      if (!paused.includes(session)) {
        throw new Failure("notFound", `Session "${session}" is not paused`, {
          hint: "See the paused sessions: claudy budget show",
        });
      }
      release(instance, session);
      io.answer({ released: session }, session, json);
    });

  return cli;
}

function scoped(cli: Command): Command {
  return cli
    .option("--session <name>", "Choose the budget of a session")
    .option(
      "--project <dir>",
      "Choose that of all sessions of a project together",
    )
    .option("--all", "Choose that of all sessions together");
}

function whoseOf(
  io: Io,
  instance: Instance,
  { session, project, all }: Options,
): Whose {
  const given = [session, project, all || undefined]
    .filter((value) => value !== undefined);
  if (given.length !== 1) {
    throw new Failure("usage", "Pass one of --session, --project and --all");
  }
  if (session !== undefined) {
    const { name } = namedSession(io, instance, session);
    return { session: name, project: null };
  }
  if (project === undefined) return { session: null, project: null };
  const path = resolve(io.cwd(), String(project));
  try {
    return { session: null, project: realpathSync(path) };
  } catch {
    throw new Failure("notFound", `There is no directory ${path}`);
  }
}

function amountOf(
  { tokens, cost }: Options,
): Pick<Budget, "measure" | "limit"> {
  if ((tokens === undefined) === (cost === undefined)) {
    throw new Failure("usage", "Pass either --tokens or --cost");
  }
  const [option, value, pattern] = tokens === undefined
    ? ["--cost", cost, /^\d{1,7}(\.\d{1,4})?$/] as const
    : ["--tokens", tokens, /^\d{1,14}$/] as const;
  if (!pattern.test(String(value))) {
    throw new Failure("usage", `Not a number: ${option} ${value}`, {
      hint: "For instance: --cost 5, --cost 0.50, --tokens 2000000",
    });
  }
  const measure = tokens === undefined ? "cost" : "tokens";
  return { measure, limit: Number(value) };
}

function showBudgets(io: Io, instance: Instance, json?: boolean): void {
  const states = budgetStates(
    readBudgets(instance.home),
    readRows(instance.home),
    dayOf(Date.now()),
  );
  const paused = readPaused(instance);
  const rows = states.map((state) => {
    const { measure, spent, level, unpriced, until } = state;
    const unknown = measure === "cost" && unpriced > 0
      ? `; ${unpriced} tokens have no price`
      : "";
    return [
      whoseText(state),
      limitText(state),
      measure === "cost" ? usdText(spent) : `${spent} tokens`,
      (level === "spent" ? "refused" : level === "near" ? "near" : "ok") +
      unknown,
      until,
    ];
  });
  const text = [
    ...(rows.length === 0
      ? []
      : [columns([["FOR", "BUDGET", "SPENT", "STATE", "UNTIL"], ...rows])]),
    ...paused.map(({ session, maxPerMinute }) =>
      `Session ${session} is paused: more than ${maxPerMinute} requests in a ` +
      `minute. Let it go on with: claudy budget release ${session}`
    ),
  ].join("\n");
  io.answer({ budgets: states, paused }, text, json);
  if (text === "") io.log("There are no budgets");
  io.log(onlyRelay);
}
