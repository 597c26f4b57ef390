// Formats text for a terminal.

/** Formats rows as lines with aligned columns. */
export function columns(cells: string[][]): string {
  const rows = cells.map((row) => row.map(printable));
  const widths = (rows[0] ?? []).map((_, column) =>
    rows.reduce((most, row) => Math.max(most, row[column]?.length ?? 0), 0)
  );
  return rows
    .map((row) =>
      row.map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ").trimEnd()
    )
    .join("\n");
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
  return version.localeCompare(minimum, "en", { numeric: true }) >= 0;
}
