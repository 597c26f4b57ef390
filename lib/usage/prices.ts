// What tokens cost, by a table with its date: lib/usage/prices.json, and the user's own
// HAL9000_HOME/config/prices.json, whose models come first.

import { existsSync } from "node:fs";
import * as v from "valibot";
import type { HomePaths } from "../instance/paths.ts";
import { Failure } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import { plainText } from "../std/plain-file.ts";
import type { Figures } from "./figures.ts";
import shipped from "./prices.json" with { type: "json" };

const usd = v.pipe(v.number(), v.minValue(0), v.maxValue(1e6));

const ratesEntries = {
  input: usd,
  output: usd,
  cacheWrite: usd,
  cacheWriteHour: usd,
  cacheRead: usd,
};

const tableSchema = v.object({
  date: v.pipe(v.string(), v.isoDate()),
  usdPerMillionTokens: v.record(
    v.string(),
    v.object({
      ...ratesEntries,
      /** Rates of requests with a longer prompt, including what is in the cache. */
      above: v.optional(
        v.object({ promptTokens: v.number(), ...ratesEntries }),
      ),
    }),
  ),
});

export type Prices = v.InferOutput<typeof tableSchema>;

const maxBytes = 256 * 1024;

/** Throws a `usage` Failure if the user's file is not valid. */
export function readPrices({ pricesFile }: HomePaths): Prices {
  if (!existsSync(pricesFile)) return shipped;
  const own = parseJson(tableSchema, plainText(pricesFile, { maxBytes }));
  if (!own) {
    throw new Failure("usage", `${pricesFile} is not a valid table of prices`, {
      hint:
        "Its form: see USAGE.md. Without the file, the shipped prices apply.",
    });
  }
  const { usdPerMillionTokens } = shipped;
  return {
    date: own.date,
    usdPerMillionTokens: { ...usdPerMillionTokens, ...own.usdPerMillionTokens },
  };
}

/**
 * In millionths of a USD. Undefined for a model that is not in the table.
 * `promptTokens` are those of the whole request.
 */
export function costOf(
  { usdPerMillionTokens }: Prices,
  figures: Figures,
  promptTokens: number,
): number | undefined {
  const model = figures.model ?? "";
  // With or without the date at the end of its name.
  const name = [model, model.replace(/\[1m\]$/, "")].flatMap((each) => [
    each,
    each.replace(/[-@]\d{8}$/, ""),
  ]).find((each) => Object.hasOwn(usdPerMillionTokens, each));
  const listed = name === undefined ? undefined : usdPerMillionTokens[name];
  if (!listed) return undefined;
  const { above } = listed;
  const rates = above && promptTokens > above.promptTokens ? above : listed;
  const hour = Math.min(figures.cacheWriteHour, figures.cacheWrite);
  return figures.input * rates.input + figures.output * rates.output +
    figures.cacheRead * rates.cacheRead +
    (figures.cacheWrite - hour) * rates.cacheWrite +
    hour * rates.cacheWriteHour;
}
