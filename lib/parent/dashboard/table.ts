// The dashboard's table: one row for each worker.

import type { Activity } from "../../session/activity.ts";
import { fitText, textWidth } from "../../std/text.ts";
import type { WorkerState } from "../../worker/workers.ts";
import { figureCell, shortSize, shortSpan } from "../../std/units.ts";
import type { Paint, Style } from "./paint.ts";

export type RowState = Activity | "no session";

export interface Row {
  /** The worker's id. */
  id: string;
  /** Index of its tmux window; undefined while it has none. */
  window: number | undefined;
  /** The session's name, or the worker's if it has no session. */
  name: string;
  session: string | null;
  project: string;
  network: WorkerState["network"];
  state: RowState;
  waitingFor: string;
  /** Since when it is in this state, in milliseconds since 1970. */
  sinceMs: number;
  lastLine: string;
  /** What its session used of the API today; "" for nothing. */
  today: string;
  /** Undefined until it is sampled. */
  usage: Usage | undefined;
}

export interface Usage {
  /** Null, like the next ones, if the engine does not measure it by container. */
  cpuPercent: number | null;
  memoryBytes: number | null;
  pids: number | null;
  /** 0 for no limit. */
  limits: { cpus: number; memoryBytes: number; pids: number };
}

interface StateStyle {
  letter: string;
  style: Style;
}

export const stateStyles: Record<RowState, StateStyle> = {
  waiting: { letter: "W", style: "yellow" },
  working: { letter: "R", style: "green" },
  idle: { letter: "I", style: "cyan" },
  limited: { letter: "T", style: "red" },
  starting: { letter: "S", style: "blue" },
  paused: { letter: "P", style: "blue" },
  stopped: { letter: "E", style: "dim" },
  exited: { letter: "X", style: "dim" },
  lost: { letter: "L", style: "red" },
  offline: { letter: "O", style: "red" },
  unknown: { letter: "U", style: "red" },
  "no session": { letter: "-", style: "dim" },
};

/** From this width on, words stand beside the letters of the states. */
const wideFrom = 100;

export const isWide = (width: number): boolean => width >= wideFrom;

/** Near its limit, a value is red. */
const nearLimit = 0.9;

interface Column {
  heading: string;
  text: (row: Row) => string;
  style?: (row: Row) => Style[];
  /** The most of the free space that it takes; the others are as wide as their texts. */
  share?: number;
  isNumber?: boolean;
}

function columnsFor(rows: Row[], width: number, nowMs: number): Column[] {
  const wide = isWide(width);
  const areShared = rows.every(({ network }) => network === "shared");
  const isCounted = rows.some(({ today }) => today !== "");
  return [
    { heading: "#", text: ({ window }) => `${window ?? ""}`, isNumber: true },
    { heading: "SESSION", text: ({ name }) => name, share: 0.35 },
    {
      heading: wide ? "STATE" : "S",
      text: ({ state }) => {
        const { letter } = stateStyles[state];
        return wide ? `${letter} ${state}` : letter;
      },
      style: ({ state }) => [stateStyles[state].style],
    },
    {
      heading: "WAITING FOR",
      text: ({ waitingFor }) => waitingFor,
      share: 0.3,
    },
    {
      heading: "SINCE",
      text: ({ sinceMs }) => shortSpan(nowMs - sinceMs),
      isNumber: true,
    },
    ...(areShared
      ? []
      : [{ heading: "NETWORK", text: ({ network }: Row) => network }]),
    ...(isCounted
      ? [{ heading: "TODAY", text: ({ today }: Row) => today, isNumber: true }]
      : []),
    { heading: "LAST LINE", text: ({ lastLine }) => lastLine, share: 1 },
    ...usageColumns,
  ];
}

const usageColumns: Column[] = [
  usageColumn(
    "CPU",
    ({ cpuPercent, limits }) => [cpuPercent, limits.cpus * 100],
    (percent) => String(Math.round(percent)),
    "%",
  ),
  usageColumn(
    "MEMORY",
    ({ memoryBytes, limits }) => [memoryBytes, limits.memoryBytes],
    shortSize,
  ),
  usageColumn("PIDS", ({ pids, limits }) => [pids, limits.pids], String),
];

function usageColumn(
  heading: string,
  valueAndLimit: (usage: Usage) => [value: number | null, limit: number],
  format: (value: number) => string,
  unit = "",
): Column {
  return {
    heading,
    isNumber: true,
    text: ({ usage }) => {
      if (!usage) return "-";
      const [value, limit] = valueAndLimit(usage);
      return figureCell(value, (figure) => {
        const most = limit > 0 ? `/${format(limit)}` : "";
        return format(figure) + most + unit;
      });
    },
    style: ({ usage }) => {
      const [value, limit] = usage ? valueAndLimit(usage) : [0, 0];
      return limit > 0 && (value ?? 0) > limit * nearLimit ? ["red"] : [];
    },
  };
}

export interface TableSize {
  width: number;
  /** Number of lines, with the headings. */
  height: number;
}

/** The table, scrolled to the selected row; as many lines as it needs and may have. */
export function tableLines(
  rows: Row[],
  selected: string | undefined,
  { width, height }: TableSize,
  { paint, nowMs }: { paint: Paint; nowMs: number },
): string[] {
  const columns = columnsFor(rows, width, nowMs);
  const widths = widthsOf(columns, rows, width);
  const gap = isWide(width) ? "  " : " ";
  const headings = columns.map(({ heading, isNumber }, at) =>
    fitCell(heading, widths[at] ?? 0, isNumber)
  ).join(gap);
  const { shown, hidden } = scrolled(rows, selected, Math.max(height - 1, 0));
  const lines = shown.map((row) => {
    const base: Style[] = row.id === selected ? ["selected"] : [];
    return columns.map(({ text, style, isNumber }, at) => {
      const cell = fitCell(text(row), widths[at] ?? 0, isNumber);
      return paint(cell, ...base, ...(style?.(row) ?? []));
    }).join(paint(gap, ...base));
  });
  const more = hidden > 0 ? [paint(`... ${hidden} more`, "dim")] : [];
  return [paint(headings, "bold"), ...lines, ...more];
}

/** The rows around the selected one; if not all fit, a line is left free. */
function scrolled(rows: Row[], selected: string | undefined, height: number) {
  if (rows.length <= height) return { shown: rows, hidden: 0 };
  const visible = Math.max(height - 1, 0);
  const at = rows.findIndex(({ id }) => id === selected);
  const first = Math.min(
    Math.max(at - Math.floor(visible / 2), 0),
    rows.length - visible,
  );
  const shown = rows.slice(first, first + visible);
  return { shown, hidden: rows.length - visible };
}

function fitCell(text: string, width: number, isNumber = false): string {
  return isNumber && text.length <= width
    ? text.padStart(width)
    : fitText(text, width);
}

/** The free space goes to the texts; the last of them gets the rest. */
function widthsOf(columns: Column[], rows: Row[], width: number): number[] {
  const gaps = (columns.length - 1) * (isWide(width) ? 2 : 1);
  const wanted = columns.map(({ heading, text }) =>
    rows.reduce(
      (most, row) => Math.max(most, textWidth(text(row))),
      heading.length,
    )
  );
  const fixed = columns.reduce(
    (sum, { share }, at) => share === undefined ? sum + (wanted[at] ?? 0) : sum,
    gaps,
  );
  const total = Math.max(width - fixed, 0);
  let free = total;
  return columns.map(({ share }, at) => {
    const most = wanted[at] ?? 0;
    if (share === undefined) return most;
    const given = share === 1
      ? free
      : Math.min(most, Math.floor(total * share));
    free -= given;
    return given;
  });
}
