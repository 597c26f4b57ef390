// Reads the tokens that a reply of the API reports, from its bytes as they pass. Memory is
// bounded whatever a server sends, which is why lines are not left to a parser of event
// streams: one that buffers a line to its end can be made to buffer all.
// https://docs.anthropic.com/en/api/messages-streaming

import { Buffer } from "node:buffer";
import * as v from "valibot";
import { isTooComplex, parseJson } from "../std/json.ts";

/** Tokens of one request. */
export interface Figures {
  model: string | undefined;
  input: number;
  output: number;
  cacheRead: number;
  /** Written to the cache, for any time. */
  cacheWrite: number;
  /** The part of them that is written for an hour, which costs more. */
  cacheWriteHour: number;
}

export const noFigures: Figures = {
  model: undefined,
  input: 0,
  output: 0,
  cacheRead: 0,
  cacheWrite: 0,
  cacheWriteHour: 0,
};

/** More than the context of any model. */
const maxTokens = 1e9;

const tokens = v.fallback(
  v.optional(
    v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(maxTokens)),
  ),
  undefined,
);

const usageEntries = {
  input_tokens: tokens,
  output_tokens: tokens,
  cache_read_input_tokens: tokens,
  cache_creation_input_tokens: tokens,
  cache_creation: v.fallback(
    v.optional(v.object({ ephemeral_1h_input_tokens: tokens })),
    undefined,
  ),
};

/** More than a request can have. */
const maxIterations = 1000;

const usageSchema = v.object({
  ...usageEntries,
  /**
   * What the API has generated, if not the answer alone. The other figures leave out
   * summaries of the conversation, which are charged for, too.
   * https://platform.claude.com/docs/en/build-with-claude/compaction-threshold
   */
  iterations: v.fallback(
    v.optional(
      v.pipe(v.array(v.object(usageEntries)), v.maxLength(maxIterations)),
    ),
    undefined,
  ),
});

type Usage = Omit<v.InferOutput<typeof usageSchema>, "iterations">;

/** It is printed, and part of a file's rows. */
export const modelSchema = v.pipe(
  v.string(),
  v.regex(/^[\w.:@/[\]-]{1,100}$/),
);

const messageSchema = v.object({
  model: v.fallback(v.optional(modelSchema), undefined),
  usage: v.optional(usageSchema),
});

const eventSchema = v.variant("type", [
  v.object({ type: v.literal("message_start"), message: messageSchema }),
  v.object({
    type: v.literal("message_delta"),
    usage: v.optional(usageSchema),
  }),
]);

/** Events with figures are a few hundred bytes long; longer lines are skipped. */
const maxLineBytes = 64 * 1024;

/** A longer reply that is not streamed has no figures. */
const maxBodyBytes = 4 * 1024 ** 2;

export interface FiguresReader {
  bytes(chunk: Uint8Array): void;
  /** The figures so far. */
  readonly figures: Figures;
  /** Call at the end of a reply that is whole. */
  end(): void;
  /** Call at the end of one that is not: its output is estimated if it is not known. */
  cut(): void;
}

/** `told` is called with the figures of the beginning of a stream. */
export function readerFor(
  contentType: string,
  encoding: string,
  told: () => void,
): FiguresReader {
  const plain = encoding === "" || encoding === "identity";
  if (plain && /^text\/event-stream\b/i.test(contentType)) {
    return new StreamReader(told);
  }
  if (plain && /^application\/json\b/i.test(contentType)) {
    return new BodyReader();
  }
  const nothing = () => {};
  return { figures: noFigures, bytes: nothing, end: nothing, cut: nothing };
}

/**
 * A token has about 4 bytes of English text and 3 of code. Thinking that is not shown
 * counts by its signature, which contains it encrypted, in Base64.
 */
const bytesPerToken = 3;

/** What an event has around its text: {"type":"content_block_delta","index":0,… */
const eventBytes = 85;

class StreamReader implements FiguresReader {
  figures = noFigures;
  readonly #told: () => void;
  #parts: Buffer[] = [];
  #length = 0;
  /** Tokens, estimated from the text so far. */
  #estimate = 0;
  #isFinal = false;

  constructor(told: () => void) {
    this.#told = told;
  }

  bytes(chunk: Uint8Array): void {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (let end; (end = rest.indexOf("\n")) >= 0;) {
      this.#add(rest.subarray(0, end));
      this.#line();
      rest = rest.subarray(end + 1);
    }
    this.#add(rest);
  }

  end(): void {
    this.#line();
  }

  cut(): void {
    if (this.#isFinal) return;
    this.#line();
    const output = Math.max(this.figures.output, this.#estimate);
    this.figures = { ...this.figures, output };
  }

  #add(part: Buffer): void {
    if (part.length === 0) return;
    this.#length += part.length;
    // A copy: the chunk's memory belongs to the caller. Of a longer line nothing is kept.
    if (this.#length <= maxLineBytes) this.#parts.push(Buffer.from(part));
    else this.#parts = [];
  }

  #line(): void {
    const line = Buffer.concat(this.#parts);
    const length = this.#length;
    [this.#parts, this.#length] = [[], 0];
    if (length > maxLineBytes || line.includes('"content_block_')) {
      const textBytes = Math.max(length - eventBytes, 1);
      this.#estimate += Math.ceil(textBytes / bytesPerToken);
    }
    if (!line.includes('"usage"')) return;
    const [, data] = /^data: ?(.*)/.exec(line.toString("utf8")) ?? [];
    const event = parseJson(eventSchema, data);
    if (!event) return;
    if (event.type === "message_start") {
      this.figures = joined(this.figures, event.message);
      this.#told();
    } else {
      this.figures = joined(this.figures, { usage: event.usage });
      this.#isFinal = event.usage?.output_tokens !== undefined;
    }
  }
}

class BodyReader implements FiguresReader {
  figures = noFigures;
  #parts: Buffer[] = [];
  #length = 0;

  bytes(chunk: Uint8Array): void {
    this.#length += chunk.length;
    if (this.#length <= maxBodyBytes) this.#parts.push(Buffer.from(chunk));
    else this.#parts = [];
  }

  end(): void {
    const text = Buffer.concat(this.#parts).toString("utf8");
    this.#parts = [];
    const message = isTooComplex(text)
      ? undefined
      : parseJson(messageSchema, text);
    if (message) this.figures = joined(this.figures, message);
  }

  cut(): void {}
}

/** Later figures include earlier ones; each event has only some of them. */
function joined(
  before: Figures,
  { model, usage }: {
    model?: string | undefined;
    usage?: v.InferOutput<typeof usageSchema> | undefined;
  },
): Figures {
  const most = (figure: number, of: (usage: Usage) => number | undefined) => {
    const iterations = (usage?.iterations ?? [])
      .reduce((sum, one) => sum + (of(one) ?? 0), 0);
    return Math.max(figure, usage && of(usage) || 0, iterations);
  };
  return {
    model: before.model ?? model,
    input: most(before.input, (usage) => usage.input_tokens),
    output: most(before.output, (usage) => usage.output_tokens),
    cacheRead: most(before.cacheRead, (usage) => usage.cache_read_input_tokens),
    cacheWrite: most(
      before.cacheWrite,
      (usage) => usage.cache_creation_input_tokens,
    ),
    cacheWriteHour: most(
      before.cacheWriteHour,
      (usage) => usage.cache_creation?.ephemeral_1h_input_tokens,
    ),
  };
}
