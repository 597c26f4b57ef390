// Turns the frames of record.sh into docs/pictures/recording.{light,dark}.svg.
//
// animate.ts FRAMES COLUMNS ROWS: a frame begins with a form feed and its time in ms, then
// a line with the cursor, then the screen's lines with SGR sequences, as tmux prints them.

import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

interface Frame {
  atMs: number;
  cursor: { x: number; y: number } | undefined;
  lines: string[];
}

interface Style {
  foreground?: string;
  background?: string;
  bold?: boolean;
  dim?: boolean;
  reverse?: boolean;
}

interface Theme {
  text: string;
  page: string;
  /** The sixteen colours that a terminal's theme defines. */
  palette: string[];
  /** Whether other colours, chosen for a dark page, are inverted in lightness. */
  invert: boolean;
}

// https://github.com/primer/primitives
const themes: Record<string, Theme> = {
  dark: {
    text: "#e6edf3",
    page: "#0d1117",
    palette:
      "484f58 ff7b72 3fb950 d29922 58a6ff bc8cff 39c5cf b1bac4 6e7681 ffa198 56d364 e3b341 79c0ff d2a8ff 56d4dd ffffff"
        .split(" ").map((hex) => `#${hex}`),
    invert: false,
  },
  light: {
    text: "#1f2328",
    page: "#ffffff",
    palette:
      "24292f cf222e 116329 4d2d00 0969da 8250df 1b7c83 6e7781 57606a a40e26 1a7f37 633c01 218bff a475f9 3192aa 24292f"
        .split(" ").map((hex) => `#${hex}`),
    invert: true,
  },
};

/** Splits a line; the escape character is not part of a sequence. */
// deno-lint-ignore no-control-regex
const sequence = /\x1b(\[[\d;:]*m)/;

/** Of a character, in SVG units. */
const width = 8.4;
const height = 18;
const margin = 14;

/** A frame is shown no longer than this, and the last one exactly that long. */
const longestMs = 2500;
const lastMs = 5000;

const [file = "", columns, rows] = process.argv.slice(2);
const screen = { columns: Number(columns), rows: Number(rows) };
const frames = parseFrames(readFileSync(file, "utf8"));
for (const [name, theme] of Object.entries(themes)) {
  writeFileSync(`docs/pictures/recording.${name}.svg`, animate(frames, theme));
}

function parseFrames(text: string): Frame[] {
  return text.split("\f").slice(1).map((frame) => {
    const [time, cursor = "", ...lines] = frame.split("\n");
    const [, x, y, shown] = cursor.split(" ").map(Number);
    return {
      atMs: Number(time),
      cursor: shown ? { x: x ?? 0, y: y ?? 0 } : undefined,
      lines: lines.slice(0, screen.rows),
    };
  });
}

/** All frames stand below one another; steps of an animation show one at a time. */
function animate(frames: Frame[], theme: Theme): string {
  const size = {
    x: Math.ceil(screen.columns * width + 2 * margin),
    y: screen.rows * height + 2 * margin,
  };
  const ids = new Map<string, string>();
  const idOf = (line: string) => {
    const id = ids.get(line) ?? `l${ids.size}`;
    ids.set(line, id);
    return id;
  };
  const drawn = frames.map(({ lines, cursor }, index) => {
    const top = index * size.y;
    const used = lines.flatMap((line, row) =>
      line.trim() === ""
        ? []
        : [`<use href="#${idOf(line)}" y="${top + row * height}"/>`]
    );
    const block = cursor
      ? `<rect class="c" x="${cursor.x * width}" y="${
        top + cursor.y * height
      }"/>`
      : "";
    return used.join("") + block;
  });
  const durations = frames.map(({ atMs }, index) =>
    Math.min((frames[index + 1]?.atMs ?? Infinity) - atMs, longestMs)
  );
  durations[durations.length - 1] = lastMs;
  const totalMs = durations.reduce((sum, ms) => sum + ms, 0);
  let passedMs = 0;
  const steps = durations.map((ms, index) => {
    const at = (passedMs / totalMs * 100).toFixed(3);
    passedMs += ms;
    return `${at}%{transform:translateY(-${index * size.y}px)}`;
  });
  const definitions = [...ids].map(([line, id]) =>
    `<g id="${id}">${drawLine(line, theme)}</g>`
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" viewBox="0 0 ${size.x} ${size.y}" width="${size.x}" height="${size.y}">
<style>
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:${theme.text}}
.b{font-weight:bold}.d{opacity:.6}.c{width:${width}px;height:${height}px;fill:${theme.text};opacity:.5}
@keyframes k{${steps.join("")}}
#k{animation:k ${totalMs}ms step-end infinite}
@media (prefers-reduced-motion){#k{animation:none;transform:translateY(-${
    (frames.length - 1) * size.y
  }px)}}
</style>
<defs>${definitions.join("\n")}</defs>
<rect width="100%" height="100%" rx="8" fill="${theme.page}" stroke="#8b949e" stroke-opacity=".4"/>
<svg x="${margin}" y="${margin}" width="${size.x - 2 * margin}" height="${
    screen.rows * height
  }"><g id="k">${drawn.join("\n")}</g></svg>
</svg>
`;
}

function drawLine(line: string, theme: Theme): string {
  let column = 0;
  return runsOf(line).map(({ text, style }) => {
    const length = [...text].length;
    const x = column * width;
    column += length;
    const colours = [
      colourOf(style.foreground, theme) ?? theme.text,
      colourOf(style.background, theme),
    ];
    const [front, back] = style.reverse
      ? [colours[1] ?? theme.page, colours[0]]
      : colours;
    const box = back
      ? `<rect x="${round(x)}" width="${
        round(length * width)
      }" height="${height}" fill="${back}"/>`
      : "";
    if (text.trim() === "") return box;
    const classes = [style.bold ? "b" : "", style.dim ? "d" : ""].join("");
    return `${box}<text x="${round(x)}" y="${height - 5}" textLength="${
      round(length * width)
    }"${classes ? ` class="${[...classes].join(" ")}"` : ""}${
      front === theme.text ? "" : ` fill="${front}" style="fill:${front}"`
    }>${escape(text)}</text>`;
  }).join("");
}

/** Parts of a line with the same style. */
function runsOf(line: string): { text: string; style: Style }[] {
  const runs: { text: string; style: Style }[] = [];
  let style: Style = {};
  for (const part of line.trimEnd().split(sequence)) {
    const codes = /^\[([\d;:]*)m$/.exec(part)?.[1];
    if (codes !== undefined) style = changed(style, codes);
    else if (part !== "") runs.push({ text: part, style });
  }
  return runs;
}

function changed(before: Style, text: string): Style {
  const codes = text.split(/[;:]/).map(Number);
  let style = before;
  while (codes.length > 0) {
    const code = codes.shift() ?? 0;
    if (code === 0) style = {};
    else if (code === 1) style = { ...style, bold: true };
    else if (code === 2) style = { ...style, dim: true };
    else if (code === 22) style = { ...style, bold: false, dim: false };
    else if (code === 7) style = { ...style, reverse: true };
    else if (code === 27) style = { ...style, reverse: false };
    else if (code === 38 || code === 48) {
      const colour = codes.shift() === 2
        ? `#${
          codes.splice(0, 3).map((n) => n.toString(16).padStart(2, "0")).join(
            "",
          )
        }`
        : indexed(codes.shift() ?? 0);
      style = code === 38
        ? { ...style, foreground: colour }
        : { ...style, background: colour };
    } else if (code === 39) delete (style = { ...style }).foreground;
    else if (code === 49) delete (style = { ...style }).background;
    else if (code >= 30 && code <= 37) {
      style = { ...style, foreground: indexed(code - 30) };
    } else if (code >= 90 && code <= 97) {
      style = { ...style, foreground: indexed(code - 82) };
    } else if (code >= 40 && code <= 47) {
      style = { ...style, background: indexed(code - 40) };
    } else if (code >= 100 && code <= 107) {
      style = { ...style, background: indexed(code - 92) };
    }
  }
  return style;
}

/** A colour of the 256, as xterm defines them; the first sixteen belong to the theme. */
function indexed(index: number): string {
  if (index < 16) return `palette ${index}`;
  const level = (n: number) => n === 0 ? 0 : 55 + 40 * n;
  const cube = index - 16;
  const rgb = index >= 232
    ? Array(3).fill(8 + 10 * (index - 232))
    : [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level);
  return `#${rgb.map((n) => n.toString(16).padStart(2, "0")).join("")}`;
}

function colourOf(
  colour: string | undefined,
  { palette, invert }: Theme,
): string | undefined {
  if (colour === undefined) return undefined;
  const index = /^palette (\d+)$/.exec(colour)?.[1];
  if (index !== undefined) return palette[Number(index)];
  return invert ? inverted(colour) : colour;
}

/** The same hue and saturation with the opposite lightness. */
function inverted(colour: string): string {
  const rgb = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const sum = Math.max(...rgb) + Math.min(...rgb);
  const moved = rgb.map((n) => Math.min(Math.max(n + 255 - sum, 0), 255));
  return `#${moved.map((n) => n.toString(16).padStart(2, "0")).join("")}`;
}

function round(n: number): number {
  return Number(n.toFixed(1));
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
