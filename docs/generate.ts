// Writes what is generated from the sources: the settings in docs/dind/CONFIGURATION.md,
// the manual pages in man, and their list in package.json: make docs. With --check, exits 1 if a file is not current.

import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import process from "node:process";
import * as v from "valibot";
import type { Main } from "../lib/cli/cli.ts";
import { balancedHosts } from "../lib/egress/presets.ts";
import { definitions } from "../lib/instance/settings.ts";
import { checkout } from "../lib/std/checkout.ts";
import manifest from "../package.json" with { type: "json" };
import { runMain } from "../tests/helper/run-main.ts";
import {
  type Help,
  manPage,
  pageName,
  type Row,
  rowsOf,
  sectionsOf,
} from "./man.ts";

/** All generated files of the checkout: their paths and contents. */
async function generatedFiles(): Promise<Map<string, string>> {
  const commands = await allHelp();
  const pages = commands.map(({ name }) => pageName(name));
  return new Map([
    ["docs/dind/CONFIGURATION.md", configuration()],
    ["docs/dind/EGRESS.md", egress()],
    ["package.json", manifestWith(pages)],
    ...commands.map((help) => {
      const text = help.name === "claudy"
        ? manPage(help, {
          others: pages.filter((page) => page !== "claudy"),
          variables: variableRows(),
        })
        : manPage(help, { others: ["claudy"] });
      return [`man/${pageName(help.name)}.1`, text] as const;
    }),
  ]);
}

const settings = Object.entries(definitions).map((
  [key, { schema, fallback, meaning }],
) => ({
  key,
  meaning,
  values: v.getDescription(schema) ?? "",
  // The machine's own home is not everybody's.
  fallback: key === "HAL9000_PROJECT_ROOTS" ? "~" : fallback,
}));

/** The document with the table of the preset `balanced`. */
function egress(): string {
  return withTable("docs/dind/EGRESS.md", [
    "| why | hosts |",
    "| --- | --- |",
    ...balancedHosts.map(([reason, ...hosts]) =>
      `| ${reason} | ${hosts.map((host) => `\`${host}\``).join(", ")} |`
    ),
  ]);
}

function configuration(): string {
  const rows = settings.map(({ key, fallback, values, meaning }) =>
    [`\`${key}\``, fallback === "" ? "" : `\`${fallback}\``, values, meaning]
      .map((cell) => cell.replaceAll("|", "\\|")).join(" | ")
  );
  return withTable("docs/dind/CONFIGURATION.md", [
    "| key | default | values | meaning |",
    "| --- | --- | --- | --- |",
    ...rows.map((row) => `| ${row} |`),
  ]);
}

/** A document with its generated table replaced. */
function withTable(path: string, lines: string[]): string {
  return readFileSync(join(checkout, path), "utf8").replace(
    /(<!-- make docs writes this table -->\n)[^]*?(?=\n\n)/,
    (_, mark) => mark + lines.join("\n"),
  );
}

function variableRows(): Row[] {
  return settings.map(({ key, fallback, meaning }) => [
    key,
    `${meaning}${fallback === "" ? "" : ` (default: ${fallback})`}`,
  ]);
}

/** npm installs only manual pages that package.json lists one by one. */
function manifestWith(pages: string[]): string {
  const manifest = JSON.parse(
    readFileSync(join(checkout, "package.json"), "utf8"),
  );
  manifest.man = pages.map((page) => `man/${page}.1`).sort();
  return `${JSON.stringify(manifest, null, 2)}\n`;
}

/** The help of all commands that an installation has. */
async function allHelp(): Promise<Help[]> {
  const scripts = Object.values(manifest.bin).map((bundle) =>
    join(checkout, "scripts", `${basename(bundle, ".js")}.ts`)
  );
  const found: Help[] = [];
  for (const script of new Set(scripts)) {
    const { main } = await import(script) as { main: Main };
    const whole = await helpOf(main, purposeOf(script));
    found.push(whole);
    if (whole.name !== "claudy") continue;
    for (const [typed, meaning] of subcommandsOf(whole.text)) {
      found.push(await helpOf(main, meaning, [firstWord(typed)]));
    }
  }
  return found;
}

async function helpOf(
  main: Main,
  meaning: string,
  words: string[] = [],
): Promise<Help> {
  const { stdout: text } = await runMain(main, [...words, "--help"]);
  const name = [/^[^ /]+/.exec(text), ...words].join(" ");
  // An action has no actions of its own.
  const rows = words.length < 2 ? sectionsOf(text).get("Commands") : [];
  const actions: Help[] = [];
  for (const [typed, meaning] of rowsOf(rows)) {
    actions.push(await helpOf(main, meaning, [...words, firstWord(typed)]));
  }
  return { name, meaning, text, actions };
}

/** The commands of claudy, which its help lists in groups. */
function subcommandsOf(text: string): Row[] {
  const other = ["Usage", "Options", "Examples"];
  return [...sectionsOf(text)].filter(([title]) => !other.includes(title))
    .flatMap(([, lines]) => rowsOf(lines))
    .filter(([typed]) => !typed.startsWith("["));
}

const firstWord = (typed: string) => typed.split(" ")[0] ?? "";

/** What a script is for, from its first comment. */
function purposeOf(path: string): string {
  const comment = /^\/\/ [^:]+: ((?:.*\n\/\/ )*.*?)\.$/m
    .exec(readFileSync(path, "utf8"));
  if (!comment) throw new Error(`${path}: its first comment gives no purpose`);
  return String(comment[1]).replaceAll("\n// ", " ");
}

/** The files that differ from `files`, manual pages of former commands included. */
function outdated(files: Map<string, string>): string[] {
  const pages = globSync("man/*", { cwd: checkout });
  return [...new Set([...files.keys(), ...pages])].filter((file) => {
    const path = join(checkout, file);
    return !existsSync(path) || readFileSync(path, "utf8") !== files.get(file);
  });
}

const files = await generatedFiles();
if (process.argv.includes("--check")) {
  const found = outdated(files);
  if (found.length > 0) {
    console.error(`Not current: ${found.join(", ")}\nRun: make docs`);
    process.exitCode = 1;
  }
} else {
  rmSync(join(checkout, "man"), { recursive: true, force: true });
  mkdirSync(join(checkout, "man"));
  for (const [file, text] of files) writeFileSync(join(checkout, file), text);
}
