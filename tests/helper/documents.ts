// The command blocks of a Markdown document.

import { spawnSync } from "node:child_process";
import markdown, { type Token } from "markdown-it";

/** A ```bash block. */
export interface Block {
  /** Of its first command, from 1. */
  line: number;
  text: string;
  /** Why it is not run: <!-- not run: REASON --> on the line before the block. */
  excuse?: string;
}

export interface Command {
  line: number;
  text: string;
}

export function tokensOf(text: string): Token[] {
  return markdown({ html: true }).parse(text, {});
}

export function blocksOf(text: string): Block[] {
  const tokens = tokensOf(text);
  return tokens.flatMap((token, index) => {
    if (token.type !== "fence" || token.info.trim() !== "bash") return [];
    const [start = 0] = token.map ?? [];
    const before = tokens[index - 1];
    const excuse = before?.map?.[1] === start
      ? /^<!-- not run: (.+\S) -->\s*$/.exec(before.content)?.[1]
      : undefined;
    return [{
      line: start + 2,
      text: token.content,
      ...(excuse === undefined ? {} : { excuse }),
    }];
  });
}

/** The commands of a block; a command may have several lines. */
export function commandsOf({ line, text }: Block): Command[] {
  const commands: Command[] = [];
  let pending = "";
  for (const [index, content] of text.trimEnd().split("\n").entries()) {
    if (pending === "" && /^\s*(#|$)/.test(content)) continue;
    if (pending === "") commands.push({ line: line + index, text: "" });
    pending += `${content}\n`;
    if (content.endsWith("\\") || !isComplete(pending)) continue;
    Object.assign(commands.at(-1) ?? {}, { text: pending.trimEnd() });
    pending = "";
  }
  if (pending !== "") throw new Error(`line ${line}: incomplete: ${pending}`);
  return commands;
}

function isComplete(text: string): boolean {
  const { status, stderr } = spawnSync("bash", ["-n"], { input: text });
  return status === 0 && stderr.length === 0; // a here-document gives a warning
}
