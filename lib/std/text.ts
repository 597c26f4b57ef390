// Text for a terminal.

/** Rows as lines whose cells stand one below the other. */
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

/** What moves the cursor, or the text around it. */
export const unprintable = /[\p{Cc}\p{Cf}\u2028\u2029]/gu;

/** Text that a terminal shows and does not obey: names are anybody's choice. */
export function printable(text: string): string {
  return text.replace(unprintable, escaped);
}

/** The same for several lines. */
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
