// What the dashboard draws, for given rows.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { actionsFor } from "../../lib/parent/dashboard/keys.ts";
import { Pane } from "../../lib/parent/dashboard/pane.ts";
import { painter } from "../../lib/parent/dashboard/paint.ts";
import {
  type Row,
  type RowState,
  stateStyles,
  tableLines,
} from "../../lib/parent/dashboard/table.ts";
import { gridFor, tileLines } from "../../lib/parent/dashboard/tiles.ts";
import { drawView, type View } from "../../lib/parent/dashboard/view.ts";
import { textWidth } from "../../lib/std/text.ts";

const nowMs = Date.parse("2026-01-01T00:05:00Z");

const row = (name: string, more: Partial<Row> = {}): Row => ({
  id: name,
  window: 1,
  name,
  session: name,
  project: `/p/${name}`,
  network: "shared",
  state: "idle",
  waitingFor: "",
  sinceMs: nowMs - 40_000,
  today: "",
  lastLine: "done",
  usage: {
    cpuPercent: 12.3,
    memoryBytes: 512 * 1024 ** 2,
    pids: 24,
    limits: { cpus: 2, memoryBytes: 4 * 1024 ** 3, pids: 100 },
  },
  ...more,
});

const waiting = row("shop", {
  state: "waiting",
  waitingFor: "permission prompt",
});

const view = (rows: Row[], more: Partial<View> = {}): View => ({
  overview: {
    startedAt: "2026-01-01T00:00:00Z",
    readyMs: 120,
    chromadbPort: 8000,
    chromadbAnswers: true,
    pool: { warm: 2, busy: 1 },
    alerts: [],
  },
  rows,
  selected: rows[0]?.id,
  request: undefined,
  notice: "",
  showsAll: false,
  screens: new Map(),
  hasColour: false,
  prefix: "C-b",
  ...more,
});

// deno-lint-ignore no-control-regex
const unstyled = (line: string) => line.replace(/\x1b\[[\d;]*m/g, "");

const draw = (drawn: View, width: number, height: number) =>
  drawView(drawn, { width, height }, nowMs).lines.map(unstyled);

const paint = painter(false);

test("tableLines() names the networks unless all workers are in the shared one", () => {
  const lines = (rows: Row[]) =>
    tableLines(rows, undefined, { width: 120, height: 9 }, { paint, nowMs })
      .map(unstyled);
  assert.not.match(lines([row("a"), row("b")])[0] ?? "", "NETWORK");
  const alone = row("b", { network: "isolated" });
  const [headings = "", ...rows] = lines([row("a"), alone]);
  const at = headings.indexOf("NETWORK");
  assert.match(rows[0]?.slice(at) ?? "", /^shared +done/);
  assert.match(rows[1]?.slice(at) ?? "", /^isolated +done/);
});

test("tableLines() has a letter for the state where there is no room for the word", () => {
  const lines = (width: number) =>
    tableLines([waiting, row("api")], "x", { width, height: 9 }, {
      paint,
      nowMs,
    }).map(unstyled);
  assert.equal(lines(80), [
    "# SESSION S WAITING FOR   SINCE LAST LINE                     CPU  MEMORY   PIDS",
    "1 shop    W permission p…   40s done                      12/200% 512M/4G 24/100",
    "1 api     I                 40s done                      12/200% 512M/4G 24/100",
  ]);
  assert.match(
    lines(120)[1] ?? "",
    /^1 {2}shop +W waiting {2}permission prompt {4}40s {2}done/,
  );
});

test("tableLines() shows the usage of today, where there is any", () => {
  const lines = tableLines(
    [row("shop", { today: "1.25 USD" }), row("api")],
    "x",
    { width: 120, height: 9 },
    { paint, nowMs },
  ).map(unstyled);
  assert.match(lines[0] ?? "", /SINCE +TODAY +LAST LINE/);
  assert.match(lines[1] ?? "", /40s +1\.25 USD +done/);
});

test("drawView() shows alerts about budgets and limits", () => {
  const drawn = view([row("shop", { state: "limited" })]);
  const alerts = ["Limit reached, resets at 03:00"];
  drawn.overview = { ...drawn.overview!, alerts };
  const lines = draw(drawn, 120, 30);
  assert.match(lines.slice(0, 3).join("\n"), "1 limited");
  assert.match(lines.slice(0, 3).join("\n"), "Limit reached, resets at 03:00");
  assert.match(lines.join("\n"), "T limited");
});

for (const width of [80, 120, 250]) {
  for (const name of ["shop", "a-very-long-session-name-".repeat(9)]) {
    test(`a table of ${width} columns is that wide, with ${name.length} characters`, () => {
      const rows = [
        row(name, {
          lastLine: "漢字 é\u0301\u0301\u0301\u0301 🙂 ".repeat(99),
        }),
        waiting,
      ];
      const size = { width, height: 9 };
      for (const line of tableLines(rows, name, size, { paint, nowMs })) {
        assert.is(textWidth(unstyled(line)), width, line);
      }
    });
  }
}

test("tableLines() scrolls to the selected row, and counts the others", () => {
  const rows = Array.from({ length: 20 }, (_, at) => row(`s${at}`));
  const names = (selected: string) =>
    tableLines(rows, selected, { width: 80, height: 6 }, { paint, nowMs })
      .map((line) => unstyled(line).split(" ").slice(0, 2).join(" "));
  assert.equal(names("s0"), [
    "# SESSION",
    "1 s0",
    "1 s1",
    "1 s2",
    "1 s3",
    "... 16",
  ]);
  assert.equal(names("s19").slice(1, -1), ["1 s16", "1 s17", "1 s18", "1 s19"]);
});

test("each state has a letter of its own, and the colour of what needs attention", () => {
  const letters = Object.values(stateStyles).map(({ letter }) => letter);
  assert.is(new Set(letters).size, letters.length);
  const line = (state: RowState, hasColour: boolean) =>
    tableLines([row("x", { state })], "", { width: 80, height: 3 }, {
      paint: painter(hasColour),
      nowMs,
    })[1] ?? "";
  assert.match(line("waiting", true), "\x1b[1;33mW\x1b[m");
  assert.match(line("working", true), "\x1b[32mR\x1b[m");
  assert.match(line("waiting", false), "\x1b[1mW\x1b[m");
  assert.not.match(line("working", false), "\x1b");
});

test("shows n/a for usage that the engine does not measure", () => {
  const limits = { cpus: 2, memoryBytes: 0, pids: 0 };
  const usage = { cpuPercent: null, memoryBytes: null, pids: 7, limits };
  const [, line = ""] = tableLines(
    [row("x", { usage })],
    "",
    { width: 80, height: 3 },
    { paint: painter(true), nowMs },
  );
  assert.match(line, /n\/a +n\/a +7/);
});

test("usage near its limit is red, and without a limit has none", () => {
  const usage = {
    cpuPercent: 250,
    memoryBytes: 3.9 * 1024 ** 3,
    pids: 7,
    limits: { cpus: 0, memoryBytes: 4 * 1024 ** 3, pids: 0 },
  };
  const [, line = ""] = tableLines(
    [row("x", { usage })],
    "",
    { width: 80, height: 3 },
    { paint: painter(true), nowMs },
  );
  assert.match(line, "250% \x1b[31m3.9G/4G\x1b[m    7");
});

test("what a worker wrote is escaped wherever it is shown", () => {
  const evil = "\x1b]52;c;x\x07\u202e\x1b[2J";
  const rows = [row("x", { lastLine: evil, waitingFor: evil, project: evil })];
  const request = { dialog: "", lines: [evil], yes: "1", no: "2" };
  const screens = new Map([["x", evil]]);
  for (const showsAll of [false, true]) {
    for (const shown of [request, undefined]) {
      const lines = draw(
        view(rows, { screens, showsAll, request: shown, notice: evil }),
        200,
        30,
      );
      // deno-lint-ignore no-control-regex
      assert.not.match(lines.join(""), /[\x00-\x1f\x7f-\x9f\u202e]/);
      assert.match(lines.join(""), "\\x1b]52");
    }
  }
});

for (const [width, height] of [[80, 23], [120, 39], [250, 59]] as const) {
  for (const showsAll of [false, true]) {
    test(`the view fills ${width}x${height}, ${showsAll ? "terminals" : "table"}`, () => {
      for (const count of [0, 1, 3, 30]) {
        const rows = Array.from({ length: count }, (_, at) => row(`s${at}`));
        const lines = draw(view(rows, { showsAll }), width, height);
        assert.is(lines.length, height);
        assert.ok(lines.every((line) => textWidth(line) <= width));
        assert.match(lines.join("\n"), /Parent: up 5 min.*ChromaDB: answers/);
        assert.match(lines.join("\n"), /Enter open {2}y allow {2}n deny/);
        assert.match(lines.at(-1) ?? "", "d detach");
      }
    });
  }
}

test("the view shows a request whole, or that there is more of it", () => {
  const lines = ["Bash command", "touch x"];
  const request = { dialog: "", lines, yes: "1", no: "3" };
  const size = { width: 80, height: 23 };
  const whole = drawView(view([waiting], { request }), size, nowMs);
  assert.ok(whole.showsRequest);
  assert.match(
    whole.lines.map(unstyled).join("\n"),
    /shop {2}\/p\/shop {2}asks: *\nBash command\ntouch x\n/,
  );
  const long = { ...request, lines: Array(40).fill("x") };
  const cut = drawView(view([waiting], { request: long }), size, nowMs);
  assert.not.ok(cut.showsRequest);
  assert.match(cut.lines.join("\n"), "... 26 more lines");
  assert.match(cut.lines.map(unstyled).join("\n"), "W permission");
  const wide = { ...request, lines: ["y".repeat(200)] };
  const wrapped = drawView(view([waiting], { request: wide }), size, nowMs);
  assert.equal(
    wrapped.lines.filter((line) => /^y+$/.test(line)).map((line) =>
      line.length
    ),
    [80, 80, 40],
  );
});

test("the header counts sessions and says when the pool is off", () => {
  const [first, second] = draw(view([waiting, row("api")]), 80, 23);
  assert.is(
    first,
    "Parent: up 5 min, ready after 120 ms  ChromaDB: answers on localhost:8000",
  );
  assert.is(second, "Pool: 2 warm, 1 claimed  Sessions: 1 waiting, 1 idle");
  const { overview } = view([]);
  assert.ok(overview);
  const off = { ...overview, readyMs: null, pool: null };
  assert.match(
    draw(view([], { overview: off }), 250, 20)[0] ?? "",
    /not ready yet.*Pool: off {2}Sessions: none/,
  );
});

const grids: [count: number, width: number, height: number, grid: string][] = [
  [1, 80, 18, "1x1"],
  [2, 80, 18, "1x2"],
  [4, 80, 18, "2x2"],
  [2, 250, 56, "2x1"],
  [9, 250, 56, "3x3"],
  [99, 80, 18, "2x3"],
];

for (const [count, width, height, grid] of grids) {
  test(`${count} terminals at ${width}x${height} are ${grid}`, () => {
    const { across, down } = gridFor(count, { width, height });
    assert.is(`${across}x${down}`, grid);
  });
}

test("tileLines() shows the end of each screen, and the page of the selected one", () => {
  const rows = Array.from({ length: 7 }, (_, at) => row(`s${at}`));
  const screens = new Map([["s0", "one\ntwo\n\n"], ["s6", "six"]]);
  const size = { width: 79, height: 15 };
  const lines = (selected: string) =>
    tileLines(rows, selected, size, { paint, screens }).map(unstyled);
  assert.match(lines("s0")[0] ?? "", /^1 s0 {2}I idle +│1 s1 {2}I idle +$/);
  assert.match(lines("s0")[1] ?? "", /^one +│/);
  assert.match(lines("s0")[2] ?? "", /^two +│/);
  assert.not.match(lines("s0").join(""), "s6");
  assert.match(lines("s6").join(""), /s6.*six/);
  assert.is(lines("s0").at(-1), "... 3 more");
  assert.is(lines("s6").at(-1), "... 4 more");
});

test("a pane is drawn again only if its content has changed", () => {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-pane-"));
  try {
    const tty = join(directory, "tty");
    const pane = new Pane(tty, 80, 24);
    const written = () => readFileSync(tty, "utf8");
    pane.show(["one", "two"]);
    assert.match(written(), "\x1b[Kone\r\n\x1b[Ktwo");
    writeFileSync(tty, "");
    pane.show(["one", "two"]);
    assert.is(written(), "");
    pane.show(["one", "three"]);
    assert.match(written(), /three$/);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

const keys: [keys: string, actions: string][] = [
  ["\r", "open"],
  ["y", "allow"],
  ["n", "deny"],
  ["a", "all"],
  ["\x1b[A", "up"],
  ["\x1bOB\x1b[B", "down,down"],
  ["yy", ""],
  ["y\r", ""],
  ["\x1b[Ay", ""],
  ["x", ""],
  ["constructor", ""],
  ["", ""],
];

for (const [pressed, actions] of keys) {
  test(`the keys ${JSON.stringify(pressed)} mean: ${actions}`, () => {
    assert.is(actionsFor(pressed).join(), actions);
  });
}

test.run();
