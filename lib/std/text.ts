// Formats text for a terminal.

/**
 * Formats rows as lines with aligned columns. If they are wider than `maxWidth`, cells of the
 * widest columns are cut; the first column and narrow ones stay whole.
 */
export function columns(cells: string[][], maxWidth = Infinity): string {
  const rows = cells.map((row) => row.map(printable));
  const widths = (rows[0] ?? []).map((_, column) =>
    rows.reduce((most, row) => Math.max(most, textWidth(row[column] ?? "")), 0)
  );
  shrink(widths, maxWidth);
  return rows
    .map((row) =>
      row.map((cell, column) => {
        const width = widths[column] ?? 0;
        const text = cut(cell, width);
        return text + " ".repeat(Math.max(width - textWidth(text), 0));
      }).join(gap).trimEnd()
    )
    .join("\n");
}

const gap = "  ";

/** A column that is narrower than this is not cut. */
const minCutWidth = 10;

/** Takes the excess from the widest columns. */
function shrink(widths: number[], maxWidth: number): void {
  const gaps = gap.length * (widths.length - 1);
  let excess = widths.reduce((sum, width) => sum + width, gaps) - maxWidth;
  for (; excess > 0; excess--) {
    const widest = Math.max(...widths.slice(1));
    if (widest <= minCutWidth) return;
    widths[widths.lastIndexOf(widest)] = widest - 1;
  }
}

/** Of a path, the end is kept. */
function cut(text: string, width: number): string {
  if (textWidth(text) <= width) return text;
  if (!/^~?\//.test(text)) return fitText(text, width);
  let end = "";
  for (const character of [...text].reverse()) {
    if (textWidth(character + end) >= width) break;
    end = character + end;
  }
  return `…${end}`;
}

/** Quotes a word for a POSIX shell, and for tmux. (`quote` of zx writes `$'…'`, for bash.) */
export function shellQuoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Characters that move the cursor or reorder text. */
export const unprintable = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;

/** Escapes characters that a terminal would interpret: names are not trusted. */
export function printable(text: string): string {
  return text.replace(unprintable, escaped);
}

/** Like printable(), but keeps line breaks and tabs. */
export function printableLines(text: string): string {
  return text.replace(
    unprintable,
    (character) => "\n\t".includes(character) ? character : escaped(character),
  );
}

function escaped(character: string): string {
  const code = (character.codePointAt(0) ?? 0).toString(16);
  return code.length > 2 ? `\\u{${code}}` : `\\x${code.padStart(2, "0")}`;
}

/** Whether a version such as "3.5a" or "1.41" is the minimum or later. */
export function isAtLeast(version: string, minimum: string): boolean {
  // Not localeCompare(), whose first call takes 10 ms of CPU time.
  const [given, least] = [version, minimum].map((text) =>
    (text.match(/\d+/g) ?? []).map(Number)
  ) as [number[], number[]];
  const index = least.findIndex((part, index) => part !== given[index]);
  return index < 0 || (given[index] ?? -1) > (least[index] ?? 0);
}

/** Characters that take two columns of a terminal, or none. */
const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/u;
const mark = /[\p{Mn}\p{Me}]/u;

/** More marks than a letter needs, and the selectors of an emoji's width. */
const excessMarks = /[\ufe00-\ufe0f]|(?<=[\p{Mn}\p{Me}]{2})[\p{Mn}\p{Me}]/gu;

/** Number of columns that a printable text takes on a terminal. */
export function textWidth(text: string): number {
  let width = 0;
  for (const character of text) width += columnsOf(character);
  return width;
}

function columnsOf(character: string): number {
  return mark.test(character) ? 0 : wide.test(character) ? 2 : 1;
}

/** Escapes a text, and cuts or pads it to exactly this number of columns. */
export function fitText(text: string, width: number): string {
  const [line = ""] = wrapText(text, width);
  const isWhole = line === shown(text);
  const cut = isWhole ? line : `${wrapText(text, width - 1)[0] ?? ""}…`;
  return width < 1 ? "" : cut + " ".repeat(Math.max(width - textWidth(cut), 0));
}

/** Escapes a text, and breaks it into lines of at most this number of columns. */
export function wrapText(text: string, width: number): string[] {
  const lines = [""];
  let used = 0;
  for (const character of shown(text)) {
    const columns = columnsOf(character);
    if (used > 0 && used + columns > width) {
      lines.push("");
      used = 0;
    }
    lines[lines.length - 1] += character;
    used += columns;
  }
  return lines;
}

/**
 * Breaks a line that begins with a term, such as an option, between words: further lines
 * begin where its description does, which is after two spaces or more.
 */
export function wrapColumn(line: string, width: number): string {
  const term = /^ *\S+(?: \S+)* {2,}/.exec(line)?.[0] ?? "    ";
  const lines = [""];
  for (const word of line.split(/(?<=\S)(?= \S)/)) {
    const last = lines.at(-1) ?? "";
    if (last !== "" && last.length + word.length > width) {
      lines.push(" ".repeat(term.length) + word.trimStart());
    } else lines[lines.length - 1] = last + word;
  }
  return lines.join("\n");
}

function shown(text: string): string {
  return printable(text).replace(excessMarks, "");
}

/** The first of these names, for a line that is printed. */
export function listed(names: string[]): string {
  const shown = names.slice(0, 5).map(printable).join(", ");
  const rest = names.length - 5;
  return rest > 0 ? `${shown} and ${rest} more` : shown;
}
