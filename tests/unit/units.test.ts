import { Buffer } from "node:buffer";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  binarySize,
  duration,
  megabytes,
  parseSize,
  shortSize,
  shortSpan,
  span,
} from "../../lib/std/units.ts";
import { Latencies, percentile } from "../../lib/std/latencies.ts";
import {
  columns,
  fitText,
  isAtLeast,
  textWidth,
  wrapColumn,
  wrapText,
} from "../../lib/std/text.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { withoutFrames } from "../../lib/docker/streams.ts";

const test = suite("units");

test("parseSize() reads sizes as Docker does", () => {
  assert.is(parseSize("4g"), 4294967296);
  assert.is(parseSize("512M"), 536870912);
  assert.is(parseSize("1.5k"), 1536);
  assert.is(parseSize("100"), 100);
  for (const text of ["", "g", "1 g", "-1", "1gb", "0x10"]) {
    assert.throws(() => parseSize(text), /Cannot parse size/);
  }
});

test("formats sizes and durations", () => {
  assert.is(megabytes(734_000), "0.7 MB");
  assert.is(megabytes(287_920_879), "288 MB");
  assert.is(binarySize(4 * 1024 ** 3), "4 GiB");
  assert.is(duration(850.4), "850 ms");
  assert.is(duration(12_340), "12.3 s");
});

test("sizes and durations change their unit exactly at its size", () => {
  assert.is(binarySize(0), "0 B");
  assert.is(binarySize(1023), "1023 B");
  assert.is(binarySize(1024), "1 KiB");
  assert.is(binarySize(1536 * 1024), "1.5 MiB");
  assert.is(binarySize(5000 * 1024 ** 4), "5000 TiB");
  assert.is(megabytes(9_940_000), "9.9 MB");
  assert.is(megabytes(10_000_000), "10 MB");
  assert.is(duration(999), "999 ms");
  assert.is(duration(1000), "1.0 s");
  const ages: [seconds: number, text: string][] = [
    [-5, "0 s"],
    [59.9, "59 s"],
    [60, "1 min"],
    [3599, "59 min"],
    [3600, "1 h"],
    [48 * 3600 - 1, "47 h"],
    [48 * 3600, "2 days"],
  ];
  for (const [seconds, text] of ages) assert.is(span(seconds * 1000), text);
  assert.is(parseSize("7b"), 7);
  assert.is(parseSize("2T"), 2 * 1024 ** 4);
});

const fits: [text: string, width: number, fitted: string][] = [
  ["ab", 4, "ab  "],
  ["abcd", 4, "abcd"],
  ["abcde", 4, "abc…"],
  ["漢字漢", 5, "漢字…"],
  ["漢字", 3, "漢…"],
  ["e\u0301\u0301\u0301\u0301x", 2, "e\u0301\u0301x"],
  ["❤\ufe0f!", 2, "❤!"],
  ["\x1b[2J", 7, "\\x1b[2J"],
  ["ab", 0, ""],
];

for (const [text, width, fitted] of fits) {
  test(`fitText(${JSON.stringify(text)}, ${width})`, () => {
    assert.is(fitText(text, width), fitted);
  });
}

test("textWidth() counts columns, not characters", () => {
  assert.is(textWidth("a漢e\u0301🙂"), 1 + 2 + 1 + 2);
});

test("wrapText() breaks a text into lines that fit", () => {
  assert.equal(wrapText("abcdef\x07", 3), ["abc", "def", "\\x0", "7"]);
  assert.equal(wrapText("漢字", 3), ["漢", "字"]);
  assert.equal(wrapText("", 3), [""]);
});

test("shortSize() and shortSpan() have no blanks", () => {
  assert.is(shortSize(512 * 1024 ** 2), "512M");
  assert.is(shortSize(1.25 * 1024 ** 3), "1.3G");
  assert.is(shortSize(0), "0B");
  assert.equal([5, 300, 7200, 200_000].map((s) => shortSpan(s * 1000)), [
    "5s",
    "5m",
    "2h",
    "2d",
  ]);
});

test("columns() aligns cells, escapes them and leaves no blanks at the end", () => {
  assert.is(
    columns([["A", "LONG", ""], ["\x1b", "b", "c"], ["x"]]),
    "A     LONG\n\\x1b  b     c\nx",
  );
  assert.is(columns([]), "");
  assert.is(columns([["北京", "x"], ["a", "y"]]), "北京  x\na     y");
});

test("wrapColumn() breaks a line between words, in the column of its description", () => {
  const option = "  --json  Print it as JSON, one object a line";
  assert.is(wrapColumn(option, 60), option);
  assert.is(
    wrapColumn(option, 26),
    "  --json  Print it as\n          JSON, one object\n          a line",
  );
  assert.is(
    wrapColumn("$ claudy run [options]", 15),
    "$ claudy run\n    [options]",
  );
  // A word that is too long stays whole.
  assert.is(wrapColumn("  -a  bbbbbbbbbb", 8), "  -a  bbbbbbbbbb");
});

test("columns() cuts the widest cells if the terminal is narrow, but no name", () => {
  const name = "n".repeat(30);
  const rows = [
    ["NAME", "STATE", "WHAT", "PROJECT"],
    [name, "idle", "w".repeat(20), `/home/me/${"p".repeat(20)}/app`],
  ];
  const shown = (width: number) => columns(rows, width).split("\n")[1];
  assert.is(
    shown(100),
    `${name}  idle   ${"w".repeat(20)}  /home/me/${"p".repeat(20)}/app`,
  );
  assert.is(
    shown(78),
    `${name}  idle   ${"w".repeat(18)}…  …${"p".repeat(13)}/app`,
  );
  // Narrow columns stay.
  assert.is(
    shown(20),
    `${name}  idle   ${"w".repeat(9)}…  …${"p".repeat(5)}/app`,
  );
});

test("waitFor() tries once more at the deadline, and names its hint", async () => {
  let asked = 0;
  const options = { for: "x", timeoutMs: 0, hint: "Look there." };
  assert.is(await waitFor(() => ++asked === 1 && "found", options), "found");
  // 0 and "" are results.
  assert.is(await waitFor(() => 0, options), 0);
  for (const nothing of [undefined, null, false]) {
    const failure = await waitFor(() => nothing, options)
      .catch((error) => error);
    assert.equal([failure.kind, failure.message, failure.hint], [
      "failed",
      "Timed out after 0 s waiting for x",
      "Look there.",
    ]);
  }
});

test("waitFor() waits as long again while there is progress", async () => {
  const answers = [true, true, false];
  const failure = await waitFor(() => false, {
    for: "x",
    timeoutMs: 2,
    everyMs: 0,
    isProgressing: () => Promise.resolve(answers.shift() ?? true),
  }).catch((error) => error);
  assert.is(failure.message, "Timed out after 0.006 s waiting for x");
});

test("withoutFrames() returns the text of both streams in order", () => {
  const frame = (stream: number, text: string) => {
    const header = Buffer.alloc(8);
    header[0] = stream;
    header.writeUInt32BE(Buffer.byteLength(text), 4);
    return Buffer.concat([header, Buffer.from(text)]);
  };
  const log = Buffer.concat([frame(1, "é\n"), frame(2, ""), frame(2, "b\n")]);
  assert.is(Buffer.from(withoutFrames(log)).toString(), "é\nb\n");
});

test("waitFor() returns the result, or reports what it waited for", async () => {
  let asked = 0;
  const options = { for: "Godot", timeoutMs: 1000, everyMs: 1 };
  assert.is(await waitFor(() => ++asked === 3 && asked, options), 3);
  try {
    await waitFor(() => undefined, { ...options, timeoutMs: 5 });
    assert.unreachable();
  } catch (error) {
    assert.match(String(error), /waiting for Godot/);
  }
});

test("isAtLeast() compares versions number by number", () => {
  for (const version of ["3.2", "3.2a", "3.10", "4", "10.0"]) {
    assert.ok(isAtLeast(version, "3.2"), version);
  }
  for (const version of ["3.1c", "3", "2.9", ""]) {
    assert.not(isAtLeast(version, "3.2"), version);
  }
});

test("percentile() uses the nearest rank, and is null without values", () => {
  const sorted = [1, 2, 3, 4];
  const at = (percent: number) => percentile(sorted, percent);
  assert.equal([0, 25, 26, 50, 99, 100].map(at), [1, 1, 2, 2, 4, 4]);
  assert.is(percentile([], 50), null);
  assert.is(percentile([1.23456], 50), 1.235);
});

test("Latencies keeps the last thousand values", () => {
  const latencies = new Latencies();
  assert.equal(latencies.percentiles, { p50: null, p95: null, p99: null });
  for (let count = 0; count < 10; count++) latencies.add(9000);
  for (let count = 1000; count > 0; count--) latencies.add(count);
  assert.equal(latencies.percentiles, { p50: 500, p95: 950, p99: 990 });
});

test.run();
