// Turns help texts into manual pages, see man(7).

/** A command, or an action of one. */
export interface Help {
  /** As it is typed. */
  name: string;
  meaning: string;
  /** The output of --help. */
  text: string;
  actions: Help[];
}

/** What is typed, and its meaning. */
export type Row = [typed: string, meaning: string];

/** The sections of a help text by title, without lines that belong to none. */
export function sectionsOf(text: string): Map<string, string[]> {
  const sections = new Map<string, string[]>();
  for (const block of text.trimEnd().split("\n\n")) {
    const [title = "", ...lines] = block.split("\n");
    if (!title.endsWith(":")) continue;
    sections.set(title.slice(0, -1), lines.map((line) => line.trim()));
  }
  return sections;
}

export function rowsOf(lines: string[] = []): Row[] {
  return lines.map((line) => {
    const [typed = "", ...meaning] = line.split(/ {2,}/);
    return [typed, meaning.join(" ")];
  });
}

/** `claudy sessions` has the page claudy-sessions. */
export const pageName = (name: string) => name.replaceAll(" ", "-");

interface Surroundings {
  /** The pages to see also. */
  others: string[];
  /** Variables that the command reads. */
  variables?: Row[];
}

export function manPage(
  { name, meaning, text, actions }: Help,
  { others, variables = [] }: Surroundings,
): string {
  const sections = sectionsOf(text);
  const known = ["Usage", "Commands", "Options", "Examples"];
  const groups = [...sections].filter(([title]) => !known.includes(title));
  const page = pageName(name);
  return [
    `.TH ${page.toUpperCase()} 1 "" "HAL-9000 DinD" "HAL-9000 DinD"`,
    ".SH NAME",
    `${escaped(page)} \\- ${escaped(meaning)}`,
    ".SH SYNOPSIS",
    ...usageOf(text).map((usage) => `.B ${escaped(usage)}`),
    ...groups.flatMap(([title, lines]) => list(title, rowsOf(lines))),
    ...(actions.length > 0 ? [".SH COMMANDS"] : []),
    ...actions.flatMap(actionPart),
    ...list("Options", rowsOf(sections.get("Options"))),
    ...list("Environment", variables),
    ...examples(sections.get("Examples")),
    ".SH SEE ALSO",
    ...others.map((other, index) =>
      `.BR ${escaped(other)} (1)${index + 1 < others.length ? "," : ""}`
    ),
    "",
  ].join("\n");
}

function actionPart({ meaning, text }: Help): string[] {
  const everywhere = ["--verbose", "-h, --help", "-v, --version"];
  const options = rowsOf(sectionsOf(text).get("Options"))
    .filter(([typed]) => !everywhere.includes(typed));
  return [
    ...usageOf(text).map((usage) => `.SS ${escaped(usage)}`),
    `${escaped(meaning)}.`,
    ...rows(options),
    ...examples(sectionsOf(text).get("Examples")).map((line) =>
      line.replace(/^\.SH EXAMPLES$/, ".PP")
    ),
  ];
}

function usageOf(text: string): string[] {
  return (sectionsOf(text).get("Usage") ?? [])
    .map((line) => line.replace(/^\$ /, ""));
}

function list(title: string, all: Row[]): string[] {
  if (all.length === 0) return [];
  return [`.SH ${title.toUpperCase()}`, ...rows(all)];
}

function rows(all: Row[]): string[] {
  return all.flatMap(([typed, meaning]) => [
    ".TP",
    `.B ${escaped(typed)}`,
    escaped(meaning),
  ]);
}

function examples(lines: string[] = []): string[] {
  if (lines.length === 0) return [];
  return [".SH EXAMPLES", ".nf", ...lines.map(escaped), ".fi"];
}

/** Text without requests and escapes of roff; a plain dash would become a hyphen. */
function escaped(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-")
    .replaceAll('"', "\\(dq").replace(/^[.']/, "\\&$&");
}
