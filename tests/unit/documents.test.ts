// The Markdown files: their links, and the blocks that docs.bats runs.

import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import GithubSlugger from "github-slugger";
import type { Token } from "markdown-it";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkout } from "../../lib/std/checkout.ts";
import { blocksOf, commandsOf, tokensOf } from "../helper/documents.ts";

const test = suite("documents");

const files = globSync(
  ["*.md", "docs/**/*.md", "lib/**/*.md", ".github/**/*.md"],
  { cwd: checkout },
);

const read = (file: string) => readFileSync(join(checkout, file), "utf8");

/** The anchors of a document's headings, as GitHub makes them. */
function anchorsOf(text: string): Set<string> {
  const slugger = new GithubSlugger();
  const tokens = tokensOf(text);
  const headings = tokens.filter((_, index) =>
    tokens[index - 1]?.type === "heading_open"
  );
  return new Set(headings.map(({ children }) => {
    const words = children?.map(({ content }) => content) ?? [];
    return slugger.slug(words.join(""));
  }));
}

/** The targets of a document's links and pictures. */
function targetsOf(tokens: Token[]): string[] {
  return tokens.flatMap((token) => [
    ...["href", "src"].map((name) => String(token.attrGet(name) ?? "")),
    ...(token.type.startsWith("html_")
      ? [...token.content.matchAll(/ (?:href|src|srcset)="([^"]*)"/g)]
        .map(([, target]) => String(target))
      : []),
    ...targetsOf(token.children ?? []),
  ]).filter((target) => target !== "");
}

/** What is wrong with a link; undefined if nothing is. */
function faultOf(target: string, file: string): string | undefined {
  if (/^[a-z]+:/.test(target)) {
    const { protocol, hostname } = new URL(target);
    return protocol === "mailto:" ||
        (protocol === "https:" && hostname.includes("."))
      ? undefined
      : "must be an https URL";
  }
  const [path = "", anchor] = decodeURIComponent(target).split("#");
  const linked = path === "" ? file : join(dirname(file), path);
  if (!existsSync(join(checkout, linked))) return "there is no such file";
  if (anchor === undefined || anchorsOf(read(linked)).has(anchor)) {
    return undefined;
  }
  return "there is no such heading";
}

test("links in documents lead to files and headings", () => {
  assert.ok(files.length > 30);
  const faults = files.flatMap((file) =>
    targetsOf(tokensOf(read(file))).flatMap((target) => {
      const fault = faultOf(target, file);
      return fault === undefined ? [] : [`${file}: ${target}: ${fault}`];
    })
  );
  assert.equal(faults, []);
});

/** Tests that a document names as `file: test`. */
const testName = /`([\w-]+\.(?:bats|test\.ts)): ([^`]+)`/g;

/** The names of a file's tests; undefined if there is no such file. */
function testsIn(file: string): string[] | undefined {
  const path = join("tests", file.endsWith(".bats") ? "bats" : "unit", file);
  if (!existsSync(join(checkout, path))) return undefined;
  return [...read(path).matchAll(/^(?:@test |test\()"(.*)"(?: \{$|,)/gm)]
    .map(([, name = ""]) => name);
}

test("the tests that documents name exist", () => {
  const named = files.flatMap((file) =>
    [...read(file).matchAll(testName)].map(([, tests = "", name = ""]) => ({
      name,
      known: testsIn(tests),
      what: `${file}: ${tests}: ${name}`,
    }))
  );
  assert.ok(named.length > 50, String(named.length));
  assert.equal(
    named.filter(({ known, name }) => !known?.includes(name))
      .map(({ what }) => what),
    [],
  );
});

test("each known attack has a test that tries it", () => {
  const [, attacks = ""] = read("docs/dind/SECURITY.md").split(
    "## Known attacks",
  );
  const rows = attacks.split("\n").filter((line) =>
    /^\| (?!-|attack)/.test(line)
  );
  assert.ok(rows.length > 50, String(rows.length));
  assert.equal(rows.filter((row) => row.match(testName) === null), []);
});

test("a missing file, a missing heading and a wrong URL are found", () => {
  const file = "docs/dind/MCP.md";
  const cases: [string, string | undefined][] = [
    ["SECURITY.md", undefined],
    ["#api-gateways", undefined],
    ["MCP.md#configmcpjson", undefined],
    ["https://example.com/x", undefined],
    ["NONE.md", "there is no such file"],
    ["#api-gateway", "there is no such heading"],
    ["http://example.com", "must be an https URL"],
  ];
  for (const [target, fault] of cases) {
    assert.is(faultOf(target, file), fault, target);
  }
  const text = '[a](b.md) ![c](d.svg)\n\n<img src="e.svg">\n';
  assert.equal(targetsOf(tokensOf(text)), ["b.md", "d.svg", "e.svg"]);
});

test("code blocks name their language, and shell commands are bash", () => {
  const known = [
    "bash",
    "console",
    "dockerfile",
    "json",
    "python",
    "text",
    "ts",
  ];
  const faults = files.flatMap((file) =>
    tokensOf(read(file))
      .filter(({ type, info }) => type === "fence" && !known.includes(info))
      .map(({ map, info }) => `${file}:${Number(map?.[0]) + 1}: "${info}"`)
  );
  assert.equal(faults, []);
});

test("blocks and their commands have the lines of the document", () => {
  const text = [
    "# One",
    "",
    "```bash",
    "# a comment",
    "one \\",
    "  two",
    "",
    "cat <<END",
    "three",
    "END",
    "for x in 4; do",
    "  echo $x",
    "done",
    "```",
    "",
    "<!-- not run: it is late -->",
    "```bash",
    "four",
    "```",
    "",
    "<!-- not run: too far away -->",
    "",
    "```bash",
    "five",
    "```",
    "",
    "```text",
    "six",
    "```",
  ].join("\n");
  const [first, second, third] = blocksOf(text);
  assert.is(blocksOf(text).length, 3);
  assert.equal(first && commandsOf(first), [
    { line: 5, text: "one \\\n  two" },
    { line: 8, text: "cat <<END\nthree\nEND" },
    { line: 11, text: "for x in 4; do\n  echo $x\ndone" },
  ]);
  assert.is(second?.excuse, "it is late");
  assert.is(third?.excuse, undefined);
  assert.is(first?.excuse, undefined);
});

test.run();
