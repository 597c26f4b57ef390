// All terminals at once: the end of each session's screen, side by side.

import { fitText } from "../../std/text.ts";
import type { Paint } from "./paint.ts";
import { type Row, stateStyles, type TableSize } from "./table.ts";

/** The smallest tile that is worth a look, with its title. */
const minWidth = 38;
const minHeight = 5;

/** A session's screen where no terminal has another size; more is not needed. */
const fullWidth = 80;
const fullHeight = 25;

export interface Grid {
  across: number;
  down: number;
}

/** The grid in which the tiles show most of `count` screens. */
export function gridFor(count: number, { width, height }: TableSize): Grid {
  const maxAcross = Math.max(Math.floor((width + 1) / (minWidth + 1)), 1);
  const maxDown = Math.max(Math.floor(height / minHeight), 1);
  const grids = Array.from(
    { length: Math.min(maxAcross, count) },
    (_, at) => ({ across: at + 1, down: Math.ceil(count / (at + 1)) }),
  ).filter(({ down }) => down <= maxDown);
  /** What is seen of a screen; of equals, whole lines and then more of them. */
  const worth = ({ across, down }: Grid) => {
    const [tileWidth, tileHeight] = [width / across, height / down];
    const columns = Math.min(Math.floor(tileWidth), fullWidth);
    const area = columns * Math.min(Math.floor(tileHeight), fullHeight);
    return area * 1e6 + columns * 1e3 + tileHeight;
  };
  grids.sort((a, b) => worth(b) - worth(a));
  return grids[0] ?? { across: maxAcross, down: maxDown };
}

export interface Page extends Grid {
  rows: Row[];
  /** Number of rows on other pages; if there are any, a line is left for it. */
  hidden: number;
}

/** The page with the selected row. */
export function pageOf(
  rows: Row[],
  selected: string | undefined,
  { width, height }: TableSize,
): Page {
  const all = gridFor(rows.length, { width, height });
  if (all.across * all.down >= rows.length) return { ...all, rows, hidden: 0 };
  const grid = gridFor(rows.length, { width, height: height - 1 });
  const each = grid.across * grid.down;
  const at = Math.max(rows.findIndex(({ id }) => id === selected), 0);
  const first = Math.floor(at / each) * each;
  const shown = rows.slice(first, first + each);
  return { ...grid, rows: shown, hidden: rows.length - shown.length };
}

/** Lines of the tiles; `screens` has the text of each worker's screen. */
export function tileLines(
  rows: Row[],
  selected: string | undefined,
  size: TableSize,
  { paint, screens }: { paint: Paint; screens: Map<string, string> },
): string[] {
  const { rows: page, across, hidden } = pageOf(rows, selected, size);
  const space = size.height - (hidden > 0 ? 1 : 0);
  const height = Math.floor(space / Math.ceil(page.length / across));
  const width = Math.floor((size.width + 1) / across) - 1;
  const lines: string[] = [];
  for (let first = 0; first < page.length; first += across) {
    const tiles = page.slice(first, first + across).map((row) => [
      titleOf(row, width, row.id === selected, paint),
      ...endOf(screens.get(row.id) ?? "", width, height - 1),
    ]);
    for (let at = 0; at < height; at++) {
      lines.push(tiles.map((tile) => tile[at] ?? "").join(paint("│", "dim")));
    }
  }
  const more = hidden > 0 ? [paint(`... ${hidden} more`, "dim")] : [];
  return [...lines, ...more];
}

function titleOf(
  { window, name, state, waitingFor }: Row,
  width: number,
  isSelected: boolean,
  paint: Paint,
): string {
  const { letter, style } = stateStyles[state];
  const words = [`${window ?? "-"} ${name}`, `${letter} ${state}`, waitingFor];
  const text = words.filter((word) => word !== "").join("  ");
  return paint(fitText(text, width), isSelected ? "selected" : "bold", style);
}

/** The last lines of a screen that hold anything. */
function endOf(screen: string, width: number, height: number): string[] {
  const lines = screen.trimEnd().split("\n").slice(-Math.max(height, 0));
  return Array.from(
    { length: height },
    (_, at) => fitText(lines[at] ?? "", width),
  );
}
