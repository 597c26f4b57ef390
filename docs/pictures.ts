// Renders docs/pictures/*.dot to SVG, for light and dark pages: make pictures.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Graphviz } from "@hpcc-js/wasm-graphviz";

export const pictures = join(import.meta.dirname ?? "", "pictures");

interface Theme {
  text: string;
  line: string;
  fill: string;
}

/** Colours of GitHub's pages: https://primer.style/product/primitives/color/ */
const themes: Record<string, Theme> = {
  light: { text: "#1f2328", line: "#59636e", fill: "#f6f8fa" },
  dark: { text: "#f0f6fc", line: "#9198a1", fill: "#151b23" },
};

/** Returns the SVG files of a source: names and contents. */
export async function render(source: string): Promise<Map<string, string>> {
  const graphviz = await Graphviz.load();
  const text = readFileSync(join(pictures, source), "utf8");
  return new Map(
    Object.entries(themes).map(([name, theme]) => [
      `${basename(source, ".dot")}.${name}.svg`,
      graphviz.dot(text.replace("{", `{\n${defaults(theme)}`)),
    ]),
  );
}

export function sources(): string[] {
  return readdirSync(pictures).filter((name) => name.endsWith(".dot"));
}

/**
 * Margins are wide, because a reader's font may be wider than the one whose widths
 * Graphviz assumes.
 */
function defaults({ text, line, fill }: Theme): string {
  const font = `fontname="Helvetica,Arial,sans-serif" fontcolor="${text}"`;
  return `graph [bgcolor=transparent color="${line}" style=rounded ${font} fontsize=12]
node [shape=box style="rounded,filled" color="${line}" fillcolor="${fill}" ${font} fontsize=12 margin="0.25,0.09"]
edge [color="${line}" ${font} fontsize=10 arrowsize=0.7]
`;
}

if (import.meta.main) {
  for (const source of sources()) {
    for (const [name, svg] of await render(source)) {
      writeFileSync(join(pictures, name), svg);
    }
  }
}
