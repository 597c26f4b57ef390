// Measures operations alternately, and prints the times as rows of a table.

import { median, quantile } from "simple-statistics";
import { columns } from "../../lib/std/text.ts";

/** Measures an operation once, in ms, without its preparation and clean-up. */
type Once = () => Promise<number>;

export interface Measured {
  name: string;
  /** The minimum to compare with, measured in the same run. */
  floor: string | null;
  samples: number;
  medianMs: number;
  p95Ms: number;
  /** Only if there are enough samples. */
  p99Ms: number | null;
  floorMedianMs: number | null;
  ratio: number | null;
}

/** Runs each in turn, so that a slow phase of the machine affects all. */
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
