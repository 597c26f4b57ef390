// Styles of the dashboard: colours, unless NO_COLOR is set (https://no-color.org).

export type Style =
  | "bold"
  | "dim"
  | "selected"
  | "red"
  | "green"
  | "yellow"
  | "blue"
  | "cyan";

/** Parameters of SGR: with colours, and without. */
const styles: Record<Style, [coloured: string, plain: string]> = {
  bold: ["1", "1"],
  dim: ["2", ""],
  selected: ["7", "7"],
  red: ["31", "1"],
  green: ["32", ""],
  yellow: ["1;33", "1"],
  blue: ["34", ""],
  cyan: ["36", ""],
};

/** Styles a printable text. */
export type Paint = (text: string, ...wanted: Style[]) => string;

export function painter(hasColour: boolean): Paint {
  return (text, ...wanted) => {
    const codes = wanted.map((style) => styles[style][hasColour ? 0 : 1])
      .filter((code) => code !== "");
    return codes.length === 0 ? text : `\x1b[${codes.join(";")}m${text}\x1b[m`;
  };
}
