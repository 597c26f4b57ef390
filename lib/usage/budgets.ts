// Budgets in HAL9000_HOME/config/budgets.json: what a session, a project or all sessions
// may use in a day or a week.

import { existsSync } from "node:fs";
import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import type { HomePaths } from "../instance/paths.ts";
import { ensureHome } from "../instance/volumes.ts";
import { Failure } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import { writeAtomic } from "../std/owned.ts";
import { plainText } from "../std/plain-file.ts";
import { printable, shellQuoted } from "../std/text.ts";
import { dayAfter, mondayOf } from "./days.ts";
import { addFigures, noFigures, type Row } from "./records.ts";

export const periods = ["day", "week"] as const;

export const budgetSchema = v.object({
  /** The session's name, the project's path, or null for all sessions. */
  session: v.nullable(v.string()),
  project: v.nullable(v.string()),
  per: v.picklist(periods),
  measure: v.picklist(["tokens", "cost"]),
  /** Tokens of all kinds, or USD. */
  limit: v.pipe(v.number(), v.minValue(0)),
});

export type Budget = v.InferOutput<typeof budgetSchema>;

const fileSchema = v.object({
  version: v.literal(1),
  budgets: v.array(budgetSchema),
});

const maxBytes = 1024 ** 2;

/** Throws a `failed` Failure if the file is damaged. */
export function readBudgets({ budgets: path }: HomePaths): Budget[] {
  if (!existsSync(path)) return [];
  const file = parseJson(fileSchema, plainText(path, { maxBytes }));
  if (file) return file.budgets;
  throw new Failure("failed", `Cannot read the budgets in ${path}`, {
    hint: "Correct the file, or remove it: the budgets are lost then.",
  });
}

type Home = Pick<Instance, "home" | "owner" | "prefix">;

/** Replaces the budget for the same use and period. */
export function setBudget(instance: Home, budget: Budget): void {
  const others = readBudgets(instance.home).filter((one) =>
    !(isFor(one, budget) && one.per === budget.per)
  );
  write(instance, [...others, budget]);
}

export type Whose = Pick<Budget, "session" | "project">;

/** Removes the budgets of a session, a project or all; returns those that it removed. */
export function removeBudgets(
  instance: Home,
  whose: Whose & { per?: Budget["per"] | undefined },
): Budget[] {
  const budgets = readBudgets(instance.home);
  const removed = budgets.filter((budget) =>
    isFor(budget, whose) && (whose.per ?? budget.per) === budget.per
  );
  if (removed.length > 0) {
    write(instance, budgets.filter((budget) => !removed.includes(budget)));
  }
  return removed;
}

/** Gives the budgets of a session to its new name. */
export function moveBudgets(instance: Home, from: string, to: string): void {
  const budgets = readBudgets(instance.home);
  if (!budgets.some(({ session }) => session === from)) return;
  write(
    instance,
    budgets.filter(({ session }) => session !== to).map((budget) =>
      budget.session === from ? { ...budget, session: to } : budget
    ),
  );
}

function write(instance: Home, budgets: Budget[]): void {
  ensureHome(instance);
  const text = JSON.stringify({ version: 1, budgets }, null, 2);
  writeAtomic(instance.home.budgets, `${text}\n`, instance.owner);
}

const isFor = (budget: Whose, { session, project }: Whose) =>
  budget.session === session && budget.project === project;

/** From this share on, a warning is given. */
const nearShare = 0.8;

export interface BudgetState extends Budget {
  /** First day of its present period. */
  since: string;
  /** When it starts anew. */
  until: string;
  spent: number;
  /** Tokens without a price, which a budget of cost does not count. */
  unpriced: number;
  level: "ok" | "near" | "spent";
}

/** What is spent of each budget on a day. */
export function budgetStates(
  budgets: Budget[],
  rows: Iterable<Row>,
  day: string,
): BudgetState[] {
  const all = budgets.map((budget) => {
    const since = budget.per === "day" ? day : mondayOf(day);
    return { budget, since, sum: noFigures() };
  });
  for (const row of rows) {
    for (const { budget, since, sum } of all) {
      const { session, project } = budget;
      const isOf = row.day >= since &&
        (session ?? row.session) === row.session &&
        (project ?? row.project) === row.project;
      if (isOf) addFigures(sum, row);
    }
  }
  return all.map(({ budget, since, sum }) => {
    const spent = budget.measure === "cost" ? sum.cost / 1e6 : tokensOf(sum);
    const { limit } = budget;
    return {
      ...budget,
      since,
      until: dayAfter(since, budget.per === "day" ? 1 : 7),
      spent,
      unpriced: sum.unpriced,
      level: spent >= limit
        ? "spent"
        : spent >= limit * nearShare
        ? "near"
        : "ok",
    };
  });
}

export function tokensOf(
  { input, output, cacheRead, cacheWrite }: ReturnType<typeof noFigures>,
): number {
  return input + output + cacheRead + cacheWrite;
}

/** Null if there are tokens, and none of them has a price. */
export function costUsd(
  { cost, unpriced }: { cost: number; unpriced: number },
): number | null {
  return cost === 0 && unpriced > 0 ? null : cost / 1e6;
}

/** A cost, with what is unknown of it. */
export function costText(usd: number | null, unpriced: number): string {
  if (usd === null) return "unknown";
  return unpriced > 0 ? `over ${usdText(usd)}` : usdText(usd);
}

export function whoseText({ session, project }: Whose): string {
  if (session !== null) return `session ${printable(session)}`;
  return project === null ? "all sessions" : `project ${printable(project)}`;
}

/** 5.00 USD a day */
export function limitText({ measure, limit, per }: Budget): string {
  const amount = measure === "cost" ? usdText(limit) : `${limit} tokens`;
  return `${amount} a ${per}`;
}

export function usdText(usd: number): string {
  // What is less than a cent is not nothing.
  return `${usd.toFixed(usd > 0 && usd < 0.01 ? 4 : 2)} USD`;
}

/** What the CLI shows. */
export function spentMessage(budget: BudgetState): string {
  return `The budget of ${whoseText(budget)}, ${
    limitText(budget)
  }, is spent; ` +
    `raise it with: ${raiseCommand(budget)}`;
}

export function nearMessage(budget: BudgetState): string {
  const percent = Math.floor(budget.spent / budget.limit * 100);
  return `${percent} % of the budget of ${whoseText(budget)}, ${
    limitText(budget)
  }, is spent`;
}

function raiseCommand({ session, project, measure, limit, per }: Budget) {
  const whose = session !== null
    ? `--session ${session}`
    : project !== null
    ? `--project ${quoted(printable(project))}`
    : "--all";
  const amount = measure === "cost"
    ? `--cost ${limit * 2 || 1}`
    : `--tokens ${Math.ceil(limit * 2) || 1000}`;
  const period = per === "day" ? [] : [`--per ${per}`];
  return ["claudy budget set", whose, amount, ...period].join(" ");
}

function quoted(word: string): string {
  return /^[\w./@+-]+$/.test(word) ? word : shellQuoted(word);
}
