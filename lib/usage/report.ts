// The sums that claudy usage shows.

import { costUsd, tokensOf } from "./budgets.ts";
import { addErrors, addFigures, noFigures, type Row } from "./records.ts";

export const groupings = ["session", "project", "day"] as const;

export type Grouping = typeof groupings[number];

export interface Sum {
  /** The session, project or day. */
  name: string;
  requests: number;
  /** Number of requests that failed, by status. */
  errors: Record<string, number>;
  input: number;
  output: number;
  cacheWrite: number;
  cacheRead: number;
  tokens: number;
  /** Null if no token of it has a price. */
  costUsd: number | null;
  /** Tokens without a price, which the cost does not include. */
  unpricedTokens: number;
}

/** Since a day, the largest cost first; days in their order. */
export function usageSums(rows: Row[], by: Grouping, since: string): Sum[] {
  const groups = new Map<string, Row[]>();
  for (const row of rows.filter(({ day }) => day >= since)) {
    const group = groups.get(row[by]) ?? [];
    group.push(row);
    groups.set(row[by], group);
  }
  const sums = [...groups].map(([name, group]) => sumOf(name, group));
  return by === "day"
    ? sums.sort((a, b) => a.name < b.name ? -1 : 1)
    : sums.sort((a, b) =>
      (b.costUsd ?? 0) - (a.costUsd ?? 0) || b.tokens - a.tokens
    );
}

export function sumOf(name: string, rows: Row[]): Sum {
  const sum = noFigures();
  let errors: Record<string, number> = {};
  for (const row of rows) {
    addFigures(sum, row);
    errors = addErrors(errors, row.errors);
  }
  const { requests, input, output, cacheWrite, cacheRead, unpriced } = sum;
  return {
    name,
    requests,
    errors,
    input,
    output,
    cacheWrite,
    cacheRead,
    tokens: tokensOf(sum),
    costUsd: costUsd(sum),
    unpricedTokens: unpriced,
  };
}
