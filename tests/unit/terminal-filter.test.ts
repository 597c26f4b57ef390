import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  type Display,
  filterText,
  TerminalFilter,
} from "../../lib/std/terminal-filter.ts";

const encode = (text: string) => new TextEncoder().encode(text);

/** The filtered output without the final reset; checks that chunking has no effect. */
function passed(input: string | Uint8Array, display: Display): string {
  const bytes = typeof input === "string" ? encode(input) : input;
  const whole = new TerminalFilter(display).write(bytes);
  for (let at = 0; at <= bytes.length; at++) {
    const filter = new TerminalFilter(display);
    const parts = filter.write(bytes.subarray(0, at)) +
      filter.write(bytes.subarray(at));
    assert.is(parts, whole, `split at byte ${at}`);
  }
  const filter = new TerminalFilter(display);
  const each = [...bytes].map((byte) => filter.write(Uint8Array.of(byte)));
  assert.is(each.join(""), whole, "a byte at a time");
  return whole;
}

const screen = (input: string | Uint8Array) => passed(input, "screen");
const text = (input: string | Uint8Array) => passed(input, "text");

const display: Record<string, string> = {
  "text in many scripts": "plain ünïcödé 日本語 👩‍👩‍👧 \u00db",
  colours: "\x1b[1;38;5;8mbold\x1b[38:2::1:2:3m\x1b[4:3m\x1b[0m",
  "cursor, erasing, scrolling":
    "\x1b[H\x1b[2J\x1b[3;4H\x1b[K\x1b[1;20r\x1b[5S\x1bM",
  "the alternate screen": "\x1b[?1049h\x1b[?1049l",
  "mouse modes": "\x1b[?1000;1002;1006h\x1b[?1003h",
  "bracketed paste and focus": "\x1b[?2004h\x1b[?1004h",
  "synchronized output": "\x1b[?2026h\x1b[?2026l",
  "the cursor's shape": "\x1b[5 q\x1b[?25l\x1b[?12h",
  "keyboard protocols": "\x1b[>4;2m\x1b[>1u\x1b[<1u\x1b[=1;1u\x1b=\x1b>",
  "a link": "\x1b]8;id=1;https://example.org/a?b=c\x1b\\here\x1b]8;;\x1b\\",
  "line drawing characters": "\x1b(0lqk\x1b(B\x1b)0\x0elqk\x0f",
  "the bell": "\x07",
  "rectangles, and erasing of unprotected text":
    "\x1b[65;1;1;2;2$x\x1b[1;1;2;2$z\x1b[?1J\x1b[?K",
  "scrolling down, the saved cursor and margins":
    "\x1b[3T\x1b[s\x1b[u\x1b[2;3s\x1b[r",
  "a soft reset": "\x1b[!p",
  "the end of a keyboard protocol": "\x1b[>4n",
  "text in any direction, and byte order marks": "\u202ea\u2066b\ufeff",
  "the cursor's colour": "\x1b]12;#ff0000\x1b\\\x1b]112\x1b\\",
};

for (const [what, sequence] of Object.entries(display)) {
  test(`passes ${what} to a screen`, () => {
    assert.is(screen(`a${sequence}b`), `a${sequence}b`);
  });
}

const harmful: Record<string, string> = {
  "the clipboard": "\x1b]52;c;ZXZpbA==\x07",
  "the clipboard, ended by ST": "\x1b]52;c;ZXZpbA==\x1b\\",
  "the clipboard, by C1": "\u009d52;c;ZXZpbA==\u009c",
  titles: "\x1b]0;t\x07\x1b]1;t\x07\x1b]2;t\x1b\\\x1bkt\x1b\\",
  "a title with characters that contain 0x9c": "\x1b]0;\u00dc\u015c evil\x07",
  "the terminal's palette": "\x1b]4;1;#fff\x07\x1b]10;#000\x07\x1b]11;?\x07",
  "a query of the cursor's colour": "\x1b]12;?\x07",
  "sequences of specific terminals":
    "\x1b]1337;File=:AAAA\x07\x1b]777;notify;a;b\x07",
  DCS: "\x1bP$qm\x1b\\\x1bPtmux;\x1b\x1b]52;c;QQ==\x07\x1b\\",
  "DCS by C1": "\u0090$qm\u009c",
  "sixel pictures": "\x1bPq#0;2;0;0;0~~@@vv$\x1b\\",
  "APC, PM and SOS":
    "\x1b_Gi=1;AAAA\x1b\\\x1b^x\x1b\\\x1bXx\x1b\\\u009fx\u009c\u009ex\u009c\u0098x\u009c",
  "device queries": "\x1b[c\x1b[>c\x1b[=c\x1b[>q\x1bZ\x1b[0x",
  "state queries": "\x1b[5n\x1b[6n\x1b[?6n\x1b[?25$p\x1b[4$p\x1b[?u\x1b[?996n",
  "the checksum of the screen": "\x1b[1;1;1;1;1;1*y",
  "the answerback": "\x05",
  "window sizes and titles":
    "\x1b[3;0;0t\x1b[8;50;500t\x1b[21t\x1b[22;0t\x1b[?3h\x1b[?40h",
  "modes that cause reports": "\x1b[?2031h\x1b[?2048h\x1b[?9001h",
  printers: "\x1b[5i\x1b[4i",
  "other character sets":
    "\x1b%@\x1b%G\x1b G\x1b(A\x1b*0\x1b+0\x1b-A\x1bn\x1b~",
  "tab stops": "\x1b[3g\x1bH",
  "keyboard modes and marks that cannot be restored":
    '\x1b[>1;0m\x1b[?1036l\x1b[?6h\x1b[1"q',
  "the locked keyboard": "\x1b[2h",
  "a character repeated a million times": "\x1b[9999999b",
  "scrolling that tracks the mouse": "\x1b[1;2;3;4;5T\x1b[1;2u",
  "other keyboard protocols": "\x1b[>1m\x1b[>40m\x1b[>2n",
  "cancelled sequences": "\x1b[31\x18\x1b]52;c;x\x1a",
  "a link with C1 bytes": "\x1b]8;;https://\u00dc\x07",
};

for (const [what, sequence] of Object.entries(harmful)) {
  test(`drops ${what} on a screen`, () => {
    const { length } = screen(`a${sequence}b`);
    const letters = what === "cancelled sequences" ? "ax\x1ab" : "ab";
    assert.ok(length <= letters.length);
    assert.is(screen(`a${sequence}b`).replace("link", ""), "ab");
  });

  test(`drops ${what} in lines of text`, () => {
    assert.is(text(`a${sequence}b`), "ab");
  });
}

test("a line feed on a screen keeps the column", () => {
  assert.is(screen("a\nb\r\nc"), "a\x1bDb\r\x1bDc");
  assert.is(screen("\x1b[3\n1m"), "\x1bD\x1b[31m");
  assert.is(text("a\nb"), "a\nb");
});

test("a cancelled sequence ends, and what follows is text", () => {
  assert.is(screen("\x1b[3\x181m"), "1m");
  assert.is(screen("\x1b\x1aM"), "M");
  // No character of a sequence.
  assert.is(screen("\x1b[3\u00e9m"), "m");
});

test("a C1 control is passed on as its escape sequence", () => {
  assert.is(screen("\u009b31ma\u008db"), "\x1b[31ma\x1bMb");
  assert.is(screen("a\u0080b\u0084c"), "ab\x1bDc");
  assert.is(text("\u009b31ma\u008db"), "\x1b[31mab");
});

test("a control in a sequence takes effect at once, from the bell to shift in", () => {
  assert.is(screen("\x1b[3\x0f\x06\x101m"), "\x0f\x1b[31m");
});

test("a sequence has at most 255 characters", () => {
  const sequence = (length: number) => `\x1b[${";".repeat(length)}m`;
  assert.is(screen(sequence(255)), sequence(255));
  assert.is(screen(sequence(256)), "");
});

test("a byte order mark at the start is not swallowed", () => {
  assert.is(screen("\ufeffa"), "\ufeffa");
  assert.is(text("\ufeffa"), "\\u{feff}a");
});

test("passes only the display modes of several to a screen", () => {
  assert.is(screen("\x1b[?25;2031;1000h"), "\x1b[?25;1000h");
});

test("does not form a sequence from the remains of another", () => {
  assert.is(screen("\x1b]0;\x1b]52;c;x\x07\x07"), "\x07");
  assert.is(screen("\x1b\x1b]52;c;x\x07"), "");
  assert.is(screen("\x1b[\x1b]52;c;x\x07"), "");
  assert.is(screen("\x1b[3\x071m"), "\x07\x1b[31m");
  assert.is(screen(`\x1b[${"1;".repeat(200)}m`), "");
  assert.is(screen(`\x1b]8;;${"x".repeat(5000)}\x07a`), "a");
});

test("replaces invalid UTF-8 by replacement characters", () => {
  // In an 8-bit terminal 0x9d would begin an OSC.
  const bytes = Uint8Array.of(0x61, 0x9d, 0x35, 0x32, 0x3b, 0x07, 0xff, 0x62);
  assert.is(screen(bytes), "a\ufffd52;\x07\ufffdb");
  assert.is(text(bytes), "a\ufffd52;\ufffdb");
});

test("lines of text keep only colours, tabs and line ends", () => {
  assert.is(
    text("a\tb\r\n\x1b[31mred\x1b[0m\n"),
    "a\tb\r\n\x1b[31mred\x1b[0m\n",
  );
  assert.is(text("\x1b[2J\x1b[H\x1b[?1049h\x1b[1Aover\x08\x07"), "over");
  // If overwritten, the line would look different.
  assert.is(text("paid 100\rpaid 900\r\n"), "paid 100\r\npaid 900\r\n");
  assert.is(
    text("\x1b]8;;https://evil.example\x1b\\bank\x1b]8;;\x1b\\"),
    "bank",
  );
  assert.is(text("user\u202egnp.exe\u2066"), "user\\u{202e}gnp.exe\\u{2066}");
});

test("an unterminated string hides at most one line of text", () => {
  assert.is(
    text("\x1b]0;never ends\nshown\n\x1bPnor this\nshown\n"),
    "\nshown\n\nshown\n",
  );
  assert.is(text("\x1b[31\nshown"), "\nshown");
});

/** The final reset after `sequence`. */
function restored(sequence: string): string {
  const filter = new TerminalFilter("screen");
  filter.write(encode(sequence));
  const undo = filter.end();
  assert.is(filter.end(), "");
  return undo;
}

const letters = "\x0f\x1b(B\x1b)B";
const margins = "\x1b7\x1b[?69l\x1b[r\x1b8";
const keys = "\x1b[<99u\x1b[=0u";
const bothKeys = `\x1b[?1049h${keys}\x1b[?1049l${keys}`;

/** The expected reset by sequence. */
const undone: Record<string, string> = {
  "text\n": "",
  "\x1b[?1049h\x1b[?1000;2004h\x1b[?25l\x1b[31m\x1b[?12h":
    "\x1b[?1049l\x1b[?1000l\x1b[?2004l\x1b[?25h\x1b[m",
  "\x1b[?1049h\x1b[?1049l": "",
  "\x1b[>4;2m\x1b[>1;0m": "\x1b[>4m",
  "\x1b[>1u\x1b[>1u\x1b[<1u": bothKeys,
  "\x1b[=1;1u\x1b[=0;2u": bothKeys,
  // Each screen has its own stack.
  "\x1b[?1049h\x1b[>1u": `${keys}\x1b[?1049l${keys}`,
  "\x1b[4h": "\x1b[4l",
  "\x1b=": "\x1b>",
  "\x1b[r": margins,
  "\x1b[2;3s": margins,
  "\x1b[?69h": margins,
  "\x1b[34l": "\x1b[34h",
  "\x1b)0\x0e": letters,
  "a\x0eb": letters,
  "\x1b[3\x0em": `${letters}\x1b[m`,
  "\x1b(0\x1b(B": letters,
  "\x1b[1;2r": margins,
  "\x1b[?1049h\x1b[1;2r": `\x1b[r\x1b[?1049l${margins}`,
  "\x1b[?69h\x1b[2;3s\x1b[?69l": margins,
  "\x1b[s\x1b[u": "",
  // ESC 8 restores the colours saved by ESC 7.
  "\x1b[31m\x1b7\x1b[m\x1b8": "\x1b[m",
  "\x1b[11m\x1b[m": "\x1b[m\x1b[10m",
  "\x1b[!p": "\x1b[?7h",
  "\x1b[5 q\x1b[2 q": "\x1b[ q",
  "\x1b]12;#ff0000\x07": "\x1b]112\x1b\\",
  "\x1b]12;red\x07\x1b]112\x07": "",
  "\x1b]8;;http://x/;\x1b\\": "\x1b]8;;\x1b\\",
  "\x1b]8;;http://x/\x1b\\\x1b]8;id=1;\x1b\\": "",
};

for (const [sequence, undo] of Object.entries(undone)) {
  test(`restores the terminal after ${JSON.stringify(sequence)}`, () => {
    assert.is(restored(sequence), undo);
  });
}

test("lines of text reset colours at their end", () => {
  assert.is(filterText("\x1b[31mred"), "\x1b[31mred\x1b[m");
  assert.is(filterText("paid\r"), "paid\r\n");
  assert.is(filterText("\x1b[31mred\x1b[0m"), "\x1b[31mred\x1b[0m");
});

test.run();
