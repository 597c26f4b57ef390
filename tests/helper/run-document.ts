// Runs the command blocks of a document in a terminal, one command after another in one
// shell, and answers what they ask.
//
// run-document.ts NAME FILE [FROM=TO...]: NAME is shown; FROM in commands is replaced by TO.
// Prints the number of blocks run and excused; exits 1 if a command failed.

import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { blocksOf, type Command, commandsOf } from "./documents.ts";

const [name, file, ...replacements] = process.argv.slice(2);
if (!name || !file) throw new Error("usage: run-document.ts NAME FILE");

/** A command that takes longer has failed; some build an image. */
const timeoutMs = 600_000;
const pollMs = 100;

const prefix = process.env["HAL9000_PREFIX"] ?? "";
const directory = mkdtempSync(join(tmpdir(), "hal9000-document-"));
const fifo = join(directory, "commands");
const codeFile = join(directory, "code");

// The shell survives Ctrl-C, which ends its command.
const shell = `trap : INT
while IFS= read -r -d "" command <"${fifo}"; do
  eval "$command"
  echo $? >"${codeFile}.new"
  mv "${codeFile}.new" "${codeFile}"
done`;

function tmux(...words: string[]): string {
  const { stdout, stderr, status } = spawnSync("tmux", [
    ...["-L", `${prefix}-document`, "-f", "/dev/null"],
    ...words,
  ], { encoding: "utf8" });
  if (status !== 0) throw new Error(`tmux ${words[0]}: ${stderr}`);
  return stdout;
}

function openTerminal(): void {
  spawnSync("mkfifo", [fifo]);
  writeFileSync(join(directory, "shell"), shell);
  tmux(
    ...["new-session", "-d", "-x", "120", "-y", "40"],
    ...["env", "-u", "TMUX", "-u", "TMUX_PANE", "TERM=xterm-256color"],
    ...["bash", join(directory, "shell")],
  );
  tmux("set", "-g", "history-limit", "5000");
}

/** Commands that end with Ctrl-C. */
const endless = /--follow\b|\bclaudy watch\b|\bports open\b/;

/** What to type now; undefined to wait. */
function answerTo(
  { text }: Command,
  screen: string,
  { alternate, stillMs }: { alternate: boolean; stillMs: number },
): string[] | undefined {
  const line = screen.trimEnd().split("\n").at(-1) ?? "";
  if (/\[(y\/N|Y\/n)\]$/.test(line)) return ["y", "Enter"];
  if (line.endsWith("(hidden):")) return ["sk-ant-api03-typed", "Enter"];
  // A session, a shell or the dashboard.
  const opened = alternate && /❯|[$#]\s*$|detach/m.test(screen);
  if (opened && stillMs > 300) return ["C-b", "d"];
  if (endless.test(text) && stillMs > 1000) return ["C-c"];
  return undefined;
}

/** Runs a command; returns undefined if it succeeded, otherwise what happened. */
async function fault(command: Command): Promise<string | undefined> {
  tmux("send-keys", "-R", ";", "clear-history");
  rmSync(codeFile, { force: true });
  writeFileSync(fifo, `${adapted(command.text)}\0`);
  const began = Date.now();
  let last = "";
  let since = began;
  let stopped = false;
  while (!existsSync(codeFile)) {
    if (Date.now() - began > timeoutMs) return `timed out\n${output()}`;
    const [alternate, ...lines] = tmux(
      ...["display", "-p", "#{alternate_on}", ";", "capture-pane", "-p"],
    ).split("\n");
    const screen = lines.join("\n");
    if (screen !== last) [last, since] = [screen, Date.now()];
    const keys = answerTo(command, screen, {
      alternate: alternate === "1",
      stillMs: Date.now() - since,
    });
    if (keys) {
      tmux("send-keys", ...keys);
      stopped ||= keys[0] === "C-c";
      since = Date.now();
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
  const code = Number(readFileSync(codeFile, "utf8"));
  if (code === 0 || (stopped && code === 130)) return undefined;
  return `exited with ${code}\n${output()}`;
}

const output = () => tmux("capture-pane", "-p", "-J", "-S", "-").trimEnd();

const text = readFileSync(file, "utf8");
const blocks = blocksOf(text);
const excused = blocks.filter(({ excuse }) => excuse !== undefined);
const chosenNames = blocks.flatMap(({ text }) =>
  [...text.matchAll(/ (?:-n|--name) ([\w-]+)/g)].map(([, name]) => name)
);

/**
 * A command for this run's instance: documents use the default one's names, and names of
 * containers are unique in the engine.
 */
function adapted(text: string): string {
  const repository = process.env["HAL9000_IMAGE_REPO"] ?? "";
  let adapted = text
    .replace(/\bhal9000-(net|parent|mcp|nsenter)\b(?!-)/g, `${prefix}-$1`)
    .replaceAll("ghcr.io/hellblazer/hal-9000:", `${repository}:`);
  for (const name of new Set(chosenNames)) {
    const word = new RegExp(`(?<![\\w/.-])${name}(?![\\w-])`, "g");
    adapted = adapted.replace(word, `${name}-${process.pid}`);
  }
  for (const replacement of replacements) {
    const [from = "", ...to] = replacement.split("=");
    adapted = adapted.replaceAll(from, () => to.join("="));
  }
  return adapted;
}

openTerminal();
try {
  document: for (const block of blocks) {
    if (block.excuse !== undefined) continue;
    for (const command of commandsOf(block)) {
      const happened = await fault(command);
      if (happened === undefined) continue;
      console.error(`${name}:${command.line}: ${command.text}\n${happened}`);
      process.exitCode = 1;
      if (happened.startsWith("timed out")) break document; // the shell is busy
    }
  }
} finally {
  tmux("kill-server");
  rmSync(directory, { recursive: true });
}
const run = blocks.length - excused.length;
console.log(`${name}: ${run} blocks run, ${excused.length} excused`);
for (const { line, excuse } of excused) {
  console.log(`${name}:${line}: not run: ${excuse}`);
}
