// The last line of a session's conversation, read from its Claude home. A worker writes
// that file, so no more than its end is read, and the line is not trusted.

import * as v from "valibot";
import type { Instance } from "../instance/instance.ts";
import { parseJson } from "../std/json.ts";
import { conversationEnd } from "./conversations.ts";

/**
 * Several messages; longer ones are skipped. After the first answer the CLI writes its
 * system prompt, of 95 KB (2.1.296).
 */
const tailBytes = 256 * 1024;

/** More than any terminal shows in a line. */
const maxLength = 500;

const blockSchema = v.object({
  type: v.string(),
  text: v.optional(v.string()),
  name: v.optional(v.string()),
  input: v.optional(v.record(v.string(), v.unknown())),
});

const entrySchema = v.object({
  type: v.picklist(["user", "assistant"]),
  isMeta: v.optional(v.boolean(), false),
  message: v.object({
    content: v.union([v.string(), v.array(blockSchema)]),
  }),
});

/** "" if there is none. Throws TooMany. */
export function lastLine(
  instance: Pick<Instance, "home">,
  session: string,
): string {
  return lastLineOf(conversationEnd(instance, session, tailBytes));
}

/** The last line of what Claude said or called, or the user asked. */
export function lastLineOf(conversation: string): string {
  for (const text of conversation.split("\n").reverse()) {
    const entry = parseJson(entrySchema, text);
    if (!entry || entry.isMeta) continue;
    const { content } = entry.message;
    const line = typeof content === "string"
      ? lineOf(content)
      : content.map(blockLine).findLast((line) => line !== "") ?? "";
    if (line === "") continue;
    return (entry.type === "user" ? `> ${line}` : line).slice(0, maxLength);
  }
  return "";
}

function blockLine({ type, text = "", name = "", input = {} }: Block): string {
  if (type === "text") return lineOf(text);
  if (type !== "tool_use") return "";
  const argument = Object.values(input).find((value) =>
    typeof value === "string"
  );
  return lineOf(`${name} ${argument ?? ""}`.replaceAll("\n", " "));
}

type Block = v.InferOutput<typeof blockSchema>;

function lineOf(text: string): string {
  return text.split("\n").map((line) => line.trim())
    .findLast((line) => line !== "") ?? "";
}
