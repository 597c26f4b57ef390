// Lays out the dashboard: overview, table or terminals, the selected session, keys.

import type { PermissionRequest } from "../../session/permission.ts";
import { fitText, textWidth, wrapText } from "../../std/text.ts";
import { duration, span } from "../../std/units.ts";
import { type Paint, painter } from "./paint.ts";
import {
  isWide,
  type Row,
  stateStyles,
  tableLines,
  type TableSize,
} from "./table.ts";
import { pageOf, tileLines } from "./tiles.ts";

export interface Overview {
  startedAt: string;
  /** How long its start took; null while it is not ready. */
  readyMs: number | null;
  chromadbPort: number;
  chromadbAnswers: boolean;
  /** Null if the pool is off. */
  pool: { warm: number; busy: number } | null;
  /** About budgets and limits. */
  alerts: string[];
}

export interface View {
  overview: Overview | undefined;
  rows: Row[];
  /** The selected worker's id. */
  selected: string | undefined;
  /** What the selected session asks for, if it is known. */
  request: PermissionRequest | undefined;
  /** What the last key has done; "" for nothing. */
  notice: string;
  showsAll: boolean;
  /** Texts of the workers' screens, by worker id. */
  screens: Map<string, string>;
  hasColour: boolean;
  /** The key before the keys of tmux, as typed. */
  prefix: string;
}

export interface Drawing {
  lines: string[];
  /** Whether the request is shown to its end, so that it may be answered. */
  showsRequest: boolean;
  /** The rows whose screens are shown. */
  onPage: Row[];
}

export function drawView(view: View, size: TableSize, nowMs: number): Drawing {
  const { width, height } = size;
  const { rows, selected, screens } = view;
  const paint = painter(view.hasColour);
  const header = headerLines(view, width, nowMs, paint);
  const footer = [
    ...(view.notice === "" ? [] : [paint(fitText(view.notice, width), "bold")]),
    ...legendLines(view, width, paint),
  ];
  const free = Math.max(height - header.length - footer.length, 0);
  const wanted = detailLines(view, width, paint);
  // The table keeps a few rows, however long a request is.
  const space = Math.max(free - Math.min(rows.length + 1, 4), 0);
  const isWhole = wanted.length <= space;
  const more = `... ${wanted.length - space + 1} more lines`;
  const detail = isWhole ? wanted : [...wanted.slice(0, space - 1), more];
  const body = { width, height: free - detail.length };
  const main = rows.length === 0
    ? [`No workers. Press ${view.prefix} w to spawn one.`]
    : view.showsAll
    ? tileLines(rows, selected, body, { paint, screens })
    : tableLines(rows, selected, body, { paint, nowMs });
  const filler = Array<string>(Math.max(body.height - main.length, 0)).fill("");
  return {
    lines: [...header, ...main, ...filler, ...detail, ...footer]
      .slice(0, height),
    showsRequest: view.request !== undefined && isWhole,
    onPage: view.showsAll ? pageOf(rows, selected, body).rows : [],
  };
}

function headerLines(
  { overview, rows }: View,
  width: number,
  nowMs: number,
  paint: Paint,
): string[] {
  const states = ["waiting", "working", "idle", "limited"] as const;
  const summary = states.flatMap((state) => {
    const count = rows.filter((row) => row.state === state).length;
    const text = `${count} ${state}`;
    return count === 0 ? [] : [paint(text, stateStyles[state].style)];
  }).join(", ");
  const items = overview ? overviewItems(overview, nowMs) : [];
  const alerts = (overview?.alerts ?? [])
    .map((alert) => paint(fitText(alert, width).trimEnd(), "red"));
  return inLines(
    [...items, `Sessions: ${summary || "none"}`, ...alerts],
    width,
  );
}

function overviewItems(overview: Overview, nowMs: number): string[] {
  const { startedAt, readyMs, pool, chromadbPort, chromadbAnswers } = overview;
  const up = span(nowMs - Date.parse(startedAt));
  const ready = readyMs === null
    ? "not ready yet"
    : `ready after ${duration(readyMs)}`;
  const answers = chromadbAnswers ? "answers" : "does not answer";
  return [
    `Parent: up ${up}, ${ready}`,
    `ChromaDB: ${answers} on localhost:${chromadbPort}`,
    `Pool: ${pool ? `${pool.warm} warm, ${pool.busy} claimed` : "off"}`,
  ];
}

/** The selected session, with its request or the last line of its conversation. */
function detailLines(
  { rows, selected, request, showsAll }: View,
  width: number,
  paint: Paint,
): string[] {
  const row = rows.find(({ id }) => id === selected);
  if (!row || (showsAll && !request)) return [];
  const title = `${row.name}  ${row.project}`;
  if (request) {
    return [
      paint(fitText(`${title}  asks:`, width), "yellow"),
      ...request.lines.flatMap((line) => wrapText(line, width)),
    ];
  }
  const last = row.lastLine === "" ? [] : wrapText(row.lastLine, width);
  return [paint(fitText(title, width), "bold"), ...last.slice(0, 2)];
}

/** The keys, and the letters of the states if their words are not in the table. */
function legendLines(
  { rows, showsAll, prefix }: View,
  width: number,
  paint: Paint,
): string[] {
  const states = Object.entries(stateStyles)
    .filter(([state]) => rows.some((row) => row.state === state))
    .map(([state, { letter, style }]) => `${paint(letter, style)} ${state}`);
  const items = keys.map(([key, meaning]) =>
    `${paint(key, "bold")} ${meaning}`
  );
  const all = `${paint("a", "bold")} ${showsAll ? "table" : "all terminals"}`;
  const afterPrefix = prefixKeys.map(([key, meaning]) =>
    `${paint(key, "bold")} ${meaning}`
  );
  // Each group begins a line, unless both fit in one.
  const groups = [[...items, all], [`${prefix} then:`, ...afterPrefix]];
  const whole = inLines(groups.flat(), width);
  return [
    ...(isWide(width) || showsAll ? [] : inLines(states, width)),
    ...(whole.length === 1
      ? whole
      : groups.flatMap((group) => inLines(group, width))),
  ];
}

type Key = [key: string, meaning: string];

const keys: Key[] = [
  ["↑↓", "choose"],
  ["Enter", "open"],
  ["y", "allow"],
  ["n", "deny"],
];

/** Bound in docker/tmux-dashboard.conf, or by tmux itself. */
const prefixKeys: Key[] = [
  ["0", "back"],
  ["w", "spawn"],
  ["c", "shell"],
  ["s", "status"],
  ["l", "list"],
  ["S", "stop all"],
  ["d", "detach"],
];

// deno-lint-ignore no-control-regex
const sequences = /\x1b\[[\d;]*m/g;

/** Puts styled items in lines of at most this number of columns. */
function inLines(items: string[], width: number): string[] {
  const lines: string[] = [];
  let used = width;
  for (const item of items) {
    const columns = textWidth(item.replace(sequences, ""));
    if (lines.length > 0 && used + 2 + columns <= width) {
      lines[lines.length - 1] += `  ${item}`;
      used += 2 + columns;
    } else {
      lines.push(item);
      used = columns;
    }
  }
  return lines;
}
