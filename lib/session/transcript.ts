// What was said in a session, from the CLI's files. A worker can write these files, so
// their texts are neither trusted nor read without a limit.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { isTooComplex, parseJson } from "../std/json.ts";
import {
  conversationEnd,
  latestConversation,
  readConversation,
} from "./conversations.ts";

export interface Message {
  at: string | null;
  role: "user" | "assistant";
  text: string;
}

const contentSchema = v.union([
  v.string(),
  v.array(v.looseObject({
    type: v.string(),
    text: v.optional(v.string()),
    name: v.optional(v.string()),
    input: v.optional(v.unknown()),
  })),
]);

const lineSchema = v.object({
  type: v.picklist(["user", "assistant"]),
  /** Set for text that the CLI has added. */
  isMeta: v.optional(v.boolean()),
  /** Set for the messages of a subagent. */
  isSidechain: v.optional(v.boolean()),
  timestamp: v.optional(v.string()),
  message: v.object({ content: contentSchema }),
});

/** How much of a conversation is read: longer ones are shown from a later message. */
const maxBytes = 8 * 1024 ** 2;

/** How far each conversation of a session has been read. */
export type Position = ReadonlyMap<string, number>;

/**
 * The messages of the last conversation, those behind `after` if it was read before.
 * Undefined if the session has no conversation. A line that is still being written is left
 * for the next call.
 */
export function readMessages(
  instance: Pick<Instance, "home">,
  session: string,
  after: Position = new Map(),
): { messages: Message[]; position: Position } | undefined {
  const file = latestConversation(instance, session);
  if (file === undefined) return undefined;
  const offset = after.get(file) ?? 0;
  const read = readConversation(instance, session, file, { offset, maxBytes });
  if (!read) return undefined;
  const { bytes, from } = read;
  const end = bytes.lastIndexOf(10) + 1;
  const lines = bytes.subarray(0, end).toString("utf8").split("\n");
  return {
    messages: lines.flatMap((line) => messageIn(line) ?? []),
    position: new Map([...after, [file, from + end]]),
  };
}

/** Undefined if the line is not a message, or has nothing to show. */
function messageIn(line: string): Message | undefined {
  if (line === "" || isTooComplex(line)) return undefined;
  const parsed = parseJson(lineSchema, line);
  if (!parsed || parsed.isMeta || parsed.isSidechain) return undefined;
  const { content } = parsed.message;
  const parts = typeof content === "string"
    ? [content]
    : content.flatMap(partText);
  const text = parts.join("\n").trim();
  if (text === "") return undefined;
  return { at: parsed.timestamp ?? null, role: parsed.type, text };
}

/** The text of a part, or the tool that it uses; nothing for results and thoughts. */
function partText(
  { type, text, name, input }: { type: string } & Record<string, unknown>,
): string[] {
  if (type === "text" && typeof text === "string") return [text];
  if (type !== "tool_use" || typeof name !== "string") return [];
  const values = Object.values((input ?? {}) as Record<string, unknown>);
  const first = values.find((value) => typeof value === "string") ?? "";
  const [line = ""] = String(first).split("\n");
  return [`[${name}] ${line.slice(0, 200)}`.trim()];
}

/** A message as text: what the user said begins with "> ". */
export function messageText({ role, text }: Message): string {
  return role === "user" ? text.replace(/^/gm, "> ") : text;
}

/**
 * Several messages; longer ones are skipped. After the first answer the CLI writes its
 * system prompt, of 95 KB (2.1.296).
 */
const lastLineBytes = 256 * 1024;

/** More than any terminal shows in a line. */
const maxLineLength = 500;

/** The last line of the conversation; "" if there is none. Throws TooMany. */
export function lastLine(
  instance: Pick<Instance, "home">,
  session: string,
): string {
  return lastLineOf(conversationEnd(instance, session, lastLineBytes));
}

/** The last line of what Claude said or called, or the user asked. */
export function lastLineOf(conversation: string): string {
  for (const line of conversation.split("\n").reverse()) {
    const message = messageIn(line);
    if (!message) continue;
    const lines = messageText(message).split("\n").map((text) => text.trim());
    return (lines.findLast((text) => text !== "") ?? "").slice(
      0,
      maxLineLength,
    );
  }
  return "";
}
