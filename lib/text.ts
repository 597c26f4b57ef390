// Text for a terminal.

/** Rows as lines whose cells stand one below the other. */
export function columns(cells: string[][]): string {
  const rows = cells.map((row) => row.map(printable));
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0))
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
  return text.replace(
    unprintable,
    (character) =>
      `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}
