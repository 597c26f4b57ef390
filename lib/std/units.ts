// Parses and formats sizes and durations for users. Sizes use Docker's notation (4g).

const factors = { b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

/** Docker's notation: a number and a binary unit b, k, m, g or t; the default is b. */
export const sizePattern = /^(\d+(?:\.\d+)?)([bkmgt]?)$/i;

/** The bytes of a size such as "4g". Throws a RangeError if it is invalid. */
export function parseSize(text: string): number {
  const match = sizePattern.exec(text);
  if (!match) throw new RangeError(`Cannot parse size "${text}"`);
  const unit = (match[2] || "b").toLowerCase() as keyof typeof factors;
  return Math.round(Number(match[1]) * factors[unit]);
}

/** "261 MB": decimal megabytes, as `docker images` prints them. */
export function megabytes(bytes: number): string {
  const size = bytes / 1e6;
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} MB`;
}

/** "4 GiB", "512 MiB". */
export function binarySize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = bytes;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${Number(size.toFixed(1))} ${units[unit]}`;
}

/** "512M", "1.2G": binary, for narrow columns. */
export function shortSize(bytes: number): string {
  return binarySize(bytes).replace(/ (.).*/, "$1");
}

/** "850 ms" below a second, "12.3 s" above. */
export function duration(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** "40 s", "5 min", "3 h", "2 days": an approximate age. */
export function span(ms: number): string {
  const seconds = Math.max(Math.floor(ms / 1000), 0);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

/** "40s", "5m", "3h", "2d": as span(), for narrow columns. */
export function shortSpan(ms: number): string {
  return span(ms).replace(/ (.).*/, "$1");
}

/** The cell of a figure, null if it is not known. */
export function figureCell(
  figure: number | null,
  format: (figure: number) => string = String,
): string {
  return figure === null ? "n/a" : format(figure);
}

/** The cell of a limit; 0 is none. */
export function limitCell(
  limit: number,
  format: (limit: number) => string = String,
): string {
  return limit === 0 ? "no limit" : format(limit);
}
