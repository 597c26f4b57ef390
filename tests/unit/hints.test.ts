// Each command that a message names exists: the program, its action and its options.

import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CAC } from "cac";
import type { Token } from "markdown-it";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Main } from "../../lib/cli/cli.ts";
import { checkout } from "../../lib/std/checkout.ts";
import { commandNames, main as claudy } from "../../scripts/claudy.ts";
import { main as buildImages } from "../../scripts/build-images.ts";
import { main as coordinator } from "../../scripts/coordinator.ts";
import { main as engine } from "../../scripts/engine.ts";
import { main as initVolumes } from "../../scripts/init-volumes.ts";
import { main as mcpGateway } from "../../scripts/mcp-gateway.ts";
import { main as migrate } from "../../scripts/migrate.ts";
import { main as poolManager } from "../../scripts/pool-manager.ts";
import { main as rollback } from "../../scripts/rollback.ts";
import { main as setupDashboard } from "../../scripts/setup-dashboard.ts";
import { main as spawnWorker } from "../../scripts/spawn-worker.ts";
import { tokensOf } from "../helper/documents.ts";
import { runMain } from "../helper/run-main.ts";
import { sourceTexts, type Text } from "../helper/texts.ts";

const test = suite("hints");

/** What an installation has on PATH. */
const programs: Record<string, Main> = {
  claudy,
  "hal9000-build-images": buildImages,
  "hal9000-coordinator": coordinator,
  "hal9000-engine": engine,
  "hal9000-init-volumes": initVolumes,
  "hal9000-mcp-gateway": mcpGateway,
  "hal9000-migrate": migrate,
  "hal9000-pool-manager": poolManager,
  "hal9000-rollback": rollback,
  "hal9000-setup-dashboard": setupDashboard,
  "hal9000-spawn-worker": spawnWorker,
};

/** Names that only a checkout has; some are also words of a sentence. */
const words = ["engine", "migrate", "rollback"];
const bareNames = Object.keys(programs).filter((name) => name !== "claudy")
  .map((name) => name.replace("hal9000-", ""))
  .filter((name) => !words.includes(name));
const bareName = new RegExp(
  `(?<![\\w./-])(${bareNames.join("|")})(?![\\w.-]*[\\w/])` +
    "|(?:: |`|^)(migrate|rollback)(?= --|[.,`]|$)",
);
const targets = readFileSync(join(checkout, "Makefile"), "utf8")
  .match(/^[a-z-]+(?=:)/gm) ?? [];
const makeTarget = new RegExp(`\\bmake (${targets.join("|")})\\b`);

/** In these files the texts are shell code. */
const shellCode = ["lib/commands/completion.ts"];

const commandStart = new RegExp(
  `(?<![\\w./-])(${Object.keys(programs).join("|")})(?![\\w/-])`,
  "g",
);

/** Words that end a command in a sentence. */
const wordsAfter = ["or", "and", "to", "for"];

/** The commands in a text, each as its words. */
function commandsIn(text: string): string[][] {
  return [...text.matchAll(commandStart)].map(({ index }) => {
    const words: string[] = [];
    for (const word of text.slice(index).split(/[ \n]+/)) {
      const plain = word.replace(/[.,;:)?!"'`]+$/, "");
      if (wordsAfter.includes(word) || /^[(<|&]/.test(word)) break;
      words.push(plain);
      if (plain !== word || word === "--") break;
    }
    return words.filter((word) => word !== "");
  });
}

/** Parses the words as the program does, without running the command. */
async function faultOf([program = "", ...words]: string[]): Promise<string> {
  const [first = ""] = words;
  if (first === "COMMAND") return "";
  const isDirectory = /^(X|DIR|DIRECTORY|[.~/].*)$/.test(first);
  if (
    program === "claudy" && /^\w/.test(first) && !isDirectory &&
    !commandNames.includes(first)
  ) {
    return `there is no command ${first}`;
  }
  const { code, stderr } = await runMain(programs[program] as Main, words);
  return code === 0 ? "" : stderr;
}

/** Checks what cac does before it runs a command. */
function checkOnly(this: CAC): number {
  const { matchedCommand: command } = this;
  command?.checkUnknownOptions();
  command?.checkOptionValue();
  command?.checkRequiredArgs();
  command?.checkUnusedArgs();
  return 0;
}

let texts: Text[] = [];
const { runMatchedCommand } = CAC.prototype;

test.before(async () => {
  texts = (await sourceTexts(checkout, ["lib", "scripts"]))
    .filter(({ at }) => !shellCode.includes(at.split(":")[0] ?? ""));
  CAC.prototype.runMatchedCommand = checkOnly;
});

test.after(() => {
  CAC.prototype.runMatchedCommand = runMatchedCommand;
});

test("the package installs each program", () => {
  const { bin } = JSON.parse(
    readFileSync(join(checkout, "package.json"), "utf8"),
  ) as { bin: Record<string, string> };
  for (const name of Object.keys(programs)) assert.ok(bin[name], name);
});

test("the texts of the sources are found", () => {
  const found = (text: string) => texts.some((one) => one.text === text);
  assert.ok(texts.length > 3000, String(texts.length));
  assert.ok(found("The pool is not running"));
  assert.ok(found("Start it: claudy pool start"));
});

test("commands are found in sentences, and parsed", async () => {
  assert.equal(
    commandsIn("Stop it: claudy stop X, then hal9000-migrate --abort."),
    [["claudy", "stop", "X"], ["hal9000-migrate", "--abort"]],
  );
  assert.equal(commandsIn("In docker exec X /scripts/claudy, X.claudy"), []);
  const faults = [
    ["claudy", "stop", "X"],
    ["claudy", "daemon", "start"],
    ["claudy", "daemon", "begin"],
    ["claudy", "halt", "X"],
    ["claudy", "stop", "--every"],
    ["claudy", "daemon", "start", "now"],
    ["hal9000-coordinator", "stop"],
  ].map(async (words) => await faultOf(words) === "");
  assert.equal(
    await Promise.all(faults),
    [true, true, false, false, false, false, false],
  );
});

test("no text names a program or target that an installation lacks", () => {
  const wrong = texts.filter(({ text }) =>
    / /.test(text) && (bareName.test(text) || makeTarget.test(text))
  );
  assert.equal(wrong, []);
});

test("each command in a text exists, with its action and options", async () => {
  const checked = new Set<string>();
  const wrong: string[] = [];
  for (const { at, text } of texts.filter(({ text }) => / /.test(text))) {
    for (const words of commandsIn(text)) {
      const fault = await faultOf(words);
      checked.add(words.join(" "));
      if (fault) wrong.push(`${at}: ${words.join(" ")}: ${fault}`);
    }
  }
  assert.equal(wrong, []);
  assert.ok(checked.size > 60, String(checked.size));
});

test("each command in a document exists, with its action and options", async () => {
  const wrong: string[] = [];
  const checked = new Set<string>();
  for (
    const file of globSync(["*.md", "docs/dind/*.md"], { cwd: checkout })
  ) {
    if (file === "CHANGELOG.md") continue; // names former commands
    const text = readFileSync(join(checkout, file), "utf8");
    for (const code of codeIn(tokensOf(text))) {
      for (const words of commandsIn(code)) {
        checked.add(words.join(" "));
        const fault = await faultOf(words);
        // A sentence may name a group of commands: `claudy daemon`.
        if (fault === "" || incomplete.test(fault)) continue;
        wrong.push(`${file}: ${words.join(" ")}: ${fault}`);
      }
    }
  }
  assert.equal(wrong, []);
  assert.ok(checked.size > 50, String(checked.size));
});

const incomplete = /^error: (No (action|command)|Missing arguments)/;

/** Code within sentences, but no usage such as `claudy [DIR]`. Blocks are run as tests. */
function codeIn(tokens: Token[]): string[] {
  return tokens.flatMap(({ type, content, children }) => [
    ...(type === "code_inline" && !/[[…|]/.test(content) ? [content] : []),
    ...codeIn(children ?? []),
  ]);
}

test.run();
