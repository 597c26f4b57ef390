// Prints the answer of `claude -p` from its events. Its text and JSON formats would not
// show that the CLI retries a request, which takes minutes.

import * as v from "valibot";
import { parseJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";

/** Those of the CLI. */
export const outputFormats = ["text", "json", "stream-json"] as const;

export type OutputFormat = typeof outputFormats[number];

/** Arguments that make the CLI print its events. */
export const eventArguments = ["--output-format", "stream-json", "--verbose"];

const eventSchema = v.looseObject({
  type: v.string(),
  subtype: v.optional(v.string()),
  level: v.optional(v.string()),
  content: v.optional(v.string()),
});

const resultSchema = v.object({
  result: v.optional(v.string()),
  errors: v.optional(v.array(v.string())),
});

const retrySchema = v.object({
  attempt: v.number(),
  max_retries: v.number(),
  retry_delay_ms: v.number(),
  error_status: v.nullish(v.number()),
  error: v.optional(v.string(), "unknown"),
});

/**
 * Takes a line that the CLI has printed; returns what is to be printed instead, if
 * anything. Reports retries.
 */
export function answerLine(
  line: string,
  format: Exclude<OutputFormat, "stream-json">,
  log: Log,
): string | undefined {
  const event = parseJson(eventSchema, line);
  if (!event) return line; // not of the CLI's protocol
  if (event.type === "result") {
    return format === "json" ? line : answerText(line);
  }
  if (event.type === "system") report(event, line, log);
  return undefined;
}

/** Whether a line that the CLI has printed is its result. */
export function isResult(line: string): boolean {
  return parseJson(eventSchema, line)?.type === "result";
}

/** What the CLI itself reports on stderr, and retries. */
function report(
  { subtype, level, content }: v.InferOutput<typeof eventSchema>,
  line: string,
  log: Log,
): void {
  if (subtype === "informational" && level === "warning" && content) {
    log(content);
  }
  if (subtype !== "api_retry") return;
  const retry = parseJson(retrySchema, line);
  if (retry) log(retryText(retry));
}

function answerText(line: string): string | undefined {
  const { result, errors } = parseJson(resultSchema, line) ?? {};
  return result ?? errors?.map((error) => `Error: ${error}`).join("\n");
}

function retryText(retry: v.InferOutput<typeof retrySchema>): string {
  const { attempt, max_retries, retry_delay_ms, error_status } = retry;
  const answer = error_status === 401 || error_status === 403
    ? `refused the credentials with ${error_status}`
    : error_status
    ? `answered ${error_status}`
    : "did not answer";
  const seconds = (retry_delay_ms / 1000).toFixed(1);
  return `The API ${answer} (${retry.error.slice(0, 100)}); ` +
    `retry ${attempt} of ${max_retries} in ${seconds} s`;
}
