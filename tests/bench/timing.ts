// Times of things, in turn, as rows of a table.

import { median, quantile } from "simple-statistics";
import { columns } from "../../lib/std/text.ts";

/** Times a thing once, in milliseconds; what comes before and after is not timed. */
type Once = () => Promise<number>;

export interface Measured {
  name: string;
  /** The least that it could take, measured in the same run. */
  floor: string | null;
  samples: number;
  medianMs: number;
  p95Ms: number;
  /** Where there are samples enough for it. */
  p99Ms: number | null;
  floorMedianMs: number | null;
  ratio: number | null;
}

/** Each in turn, as often as asked: what slows one down slows down all. */
export async function interleaved<Name extends string>(
  rounds: number,
  things: Record<Name, Once>,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(things) as Name[];
  const times = Object.fromEntries(
    names.map((name): [string, number[]] => [name, []]),
  ) as Record<Name, number[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of names) times[name].push(await things[name]());
  }
  return times;
}

export async function timed(act: () => unknown): Promise<number> {
  const startedAt = performance.now();
  await act();
  return performance.now() - startedAt;
}

export function row(
  name: string,
  times: number[],
  floor: string | null,
  floorTimes: number[],
): Measured {
  const floorMedian = floor === null ? null : median(floorTimes);
  return {
    name,
    floor,
    samples: times.length,
    medianMs: median(times),
    p95Ms: quantile(times, 0.95),
    p99Ms: null,
    floorMedianMs: floorMedian,
    ratio: floorMedian === null ? null : median(times) / floorMedian,
  };
}

export function asTable(results: Measured[]): string {
  const ms = (value: number | null) =>
    value === null ? "" : `${value.toFixed(1)} ms`;
  return columns([
    ["WHAT", "MEDIAN", "P95", "P99", "BESIDE", "ITS MEDIAN", "RATIO"],
    ...results.map((result) => [
      result.name,
      ms(result.medianMs),
      ms(result.p95Ms),
      ms(result.p99Ms),
      result.floor ?? "",
      ms(result.floorMedianMs),
      result.ratio?.toFixed(2) ?? "",
    ]),
  ]);
}
