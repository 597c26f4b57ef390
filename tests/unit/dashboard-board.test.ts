// The dashboard with a tmux that only records its commands, and a fake engine.

import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import { writeParentState } from "../../lib/instance/parent-state.ts";
import { Board } from "../../lib/parent/dashboard/board.ts";
import {
  TmuxControl,
  TmuxError,
} from "../../lib/parent/dashboard/tmux-control.ts";
import { writeDesired } from "../../lib/pool/desired.ts";
import { waitFor } from "../../lib/std/wait.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

/** Answers as tmux in control mode does, from files of its directory. */
const fakeTmux = `#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >arguments
echo $$ >pid
answer() {
  echo "%begin 1 1 1"
  [ -z "$2" ] || echo "$2"
  [ ! -f "$1" ] || /bin/cat "$1"
  echo "%$3 1 1 1"
}
echo "not a notice"
answer none "" end
while IFS= read -r line; do
  echo "$line" >>asked
  case $line in
    "'list-panes' '-s'"*) answer panes "" end ;;
    "'list-panes' '-t'"*) answer window "" end ;;
    "'list-clients'"*) answer clients "" end ;;
    "'list-windows'"*) answer windows "" end ;;
    "'show-environment'"*) answer environment "" end ;;
    "'new-window'"*) answer none "@9 3" end ;;
    "'kill-window'"*) answer none "no such window" error ;;
    "'end'"*) exit ;;
    *) answer none "" end ;;
  esac
  if [ -f notice ]; then /bin/cat notice; rm notice; fi
done
`;

/** Reads what a test presses instead of the pane's terminal, which is none. */
const fakeCat = `#!/bin/sh
exec /bin/cat "$(dirname "$0")/keys"
`;

interface Context extends FakeInstance {
  tmux: string;
  path: string | undefined;
  stop: AbortController;
  running: Promise<void> | undefined;
  pane: number;
  keys: number;
  /** The commands that tmux got. */
  asked: () => string[];
  /** All that was written to the pane. */
  written: () => string;
  /** The lines that the pane shows. */
  lines: () => string[];
  press: (keys: string) => void;
  until: (what: string, probe: () => unknown) => Promise<unknown>;
}

const test = suite<Context>("dashboard: board");

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const { root } = context;
  const tmux = join(root, "tmux");
  mkdirSync(tmux);
  writeFileSync(join(tmux, "tmux"), fakeTmux);
  chmodSync(join(tmux, "tmux"), 0o755);
  writeFileSync(join(tmux, "cat"), fakeCat);
  chmodSync(join(tmux, "cat"), 0o755);
  const [pane, keys] = [join(tmux, "pane"), join(tmux, "keys")];
  execFileSync("mkfifo", [pane, keys]);
  const write = (name: string, ...lines: string[]) =>
    writeFileSync(join(tmux, name), lines.map((line) => `${line}\n`).join(""));
  write("asked");
  write("panes", ` ${join(tmux, "prompt")} 80 24`, `board ${pane} 100 23`);
  context.tmux = tmux;
  context.path = process.env["PATH"];
  process.env["PATH"] = `${tmux}:${context.path}`;
  const { O_RDWR, O_NONBLOCK } = constants;
  context.pane = openSync(pane, O_RDWR | O_NONBLOCK);
  context.keys = openSync(keys, O_RDWR | O_NONBLOCK);
  context.stop = new AbortController();
  context.running = undefined;
  let heard = "";
  const decoder = new TextDecoder();
  const bytes = new Uint8Array(65536);
  context.asked = () =>
    readFileSync(join(tmux, "asked"), "utf8").split("\n").filter(Boolean)
      .map((line) => line.replaceAll("'", ""));
  context.written = () => {
    try {
      const count = readSync(context.pane, bytes);
      heard += decoder.decode(bytes.subarray(0, count), { stream: true });
    } catch {
      // nothing new
    }
    return heard;
  };
  context.lines = () =>
    (context.written().split("\x1b[?1049h").at(-1) ?? "")
      // deno-lint-ignore no-control-regex
      .replace(/\x1b\[[?;0-9]*[a-zA-Z]|\x07/g, "").split("\r\n");
  context.press = (text) => void writeSync(context.keys, text);
  context.until = (what, probe) =>
    waitFor(async () => {
      context.written(); // a full pipe would block the dashboard
      return Boolean(await probe());
    }, {
      for: what,
      timeoutMs: 5000,
      everyMs: 10,
    });
});

test.after.each(async ({ stop, running, path, pane, keys, end }) => {
  stop.abort();
  await running;
  closeSync(pane);
  closeSync(keys);
  process.env["PATH"] = path;
  end();
});

function addWorker(
  { engine, labels }: Context,
  name: string,
  session: string | null,
): FakeContainer {
  return engine.add(name, {
    spec: {
      Labels: labels({
        ...(session === null ? {} : { [label.session]: session }),
        [label.project]: "/p/app",
      }),
    },
  });
}

function says({ instance }: Context, session: string, state: object): void {
  const directory = join(instance.home.claude, session);
  mkdirSync(directory, { recursive: true });
  writeFileSync(
    join(directory, "hal9000-activity.json"),
    JSON.stringify(state),
  );
}

function run(context: Context): void {
  const { instance, log, stop, engine } = context;
  const Id = engine.find("fake-parent")?.id ?? "";
  const self = { Id } as NonNullable<typeof instance.self>;
  const parent = engine.find("fake-parent") as FakeContainer;
  parent.startedAt = new Date(Date.now() - 130_000).toISOString();
  writeParentState(instance, {
    version: 1,
    container: Id,
    ready: true,
    readyMs: 250,
    chromadbFault: null,
    phases: [],
    children: [],
  });
  const board = new Board({ ...instance, self }, log);
  context.running = board.run(stop);
}

/** A terminal shows the dashboard. */
const attach = ({ tmux }: Context) =>
  writeFileSync(join(tmux, "clients"), "1\n0\n");

const sample = {
  cpu_stats: {
    cpu_usage: { total_usage: 50 },
    system_cpu_usage: 100,
    online_cpus: 1,
  },
  precpu_stats: { cpu_usage: { total_usage: 0 }, system_cpu_usage: 0 },
  memory_stats: { usage: 1024 ** 2 },
  pids_stats: { current: 3 },
};

test("the pane shows the parent and the workers and, at a terminal, their usage", async (context) => {
  const { engine, until, lines, asked, tmux, instance } = context;
  writeDesired(instance, true);
  addWorker(context, "one", "s-one");
  says(context, "s-one", { status: "busy" });
  addWorker(context, "two", "s-two");
  engine.sample = sample;
  run(context);
  // Columns are two blanks apart; one is left between words.
  const shows = (...cells: string[]) =>
    lines().some((line) => {
      const found = line.split(/ {2,}/);
      return cells.every((cell) => found.includes(cell));
    });
  await until("the workers", () => shows("s-two"));
  await until("the overview", () => shows("Pool: 0 warm, 0 claimed"));
  assert.ok(shows("Parent: up 2 min, ready after 250 ms"));
  assert.ok(shows("ChromaDB: answers on localhost:8000"));
  assert.ok(shows("Sessions: 1 working"));
  assert.ok(
    shows("#", "SESSION", "STATE", "WAITING FOR", "SINCE", "LAST LINE", "CPU"),
  );
  assert.ok(shows("3", "s-one", "R working", "-"));
  assert.ok(shows("3", "s-two", "S starting", "-"));
  assert.ok(shows("Enter open", "y allow", "n deny", "a all terminals"));
  assert.is(lines().length, 23);
  attach(context);
  says(context, "s-one", { status: "idle" });
  await until("the usage", () => shows("s-one", "I idle", "50%", "1M", "3"));
  assert.ok(asked().includes("set -g @workers 2"));
  assert.ok(asked().includes("set -g @waiting 0"));
  assert.match(
    readFileSync(join(tmux, "arguments"), "utf8"),
    "-L hal9000 -C attach-session -t =hal9000 -f ignore-size,no-output",
  );
});

test("a session whose Claude has ended is exited, with its exit code", async (context) => {
  const { until, lines, instance } = context;
  addWorker(context, "one", "s-one");
  addWorker(context, "two", "s-two");
  for (const [name, code] of [["s-one", 3], ["s-two", 0]]) {
    const home = join(instance.home.claude, String(name));
    mkdirSync(home, { recursive: true });
    writeFileSync(join(home, "hal9000-ended"), `${code}\n`);
  }
  run(context);
  const line = (name: string) =>
    lines().find((line) => line.includes(name)) ?? "";
  await until("the state", () => line("s-one").includes("X exited"));
  assert.match(line("s-one"), /X exited +exit code 3 /);
  assert.not.match(line("s-two"), "exit code");
});

test("a terminal inside another tmux is told the key that reaches the dashboard", async (context) => {
  const { until, lines, tmux } = context;
  addWorker(context, "one", "s-one");
  says(context, "s-one", { status: "busy" });
  run(context);
  const shown = (text: string) => lines().some((line) => line.includes(text));
  await until("the keys", () => shown("C-b then:"));
  writeFileSync(join(tmux, "clients"), "1 xterm\n0 tmux-256color\n");
  says(context, "s-one", { status: "idle" });
  await until("the other key", () => shown("C-] then:"));
});

test("windows of sessions are detached when the last terminal leaves", async (context) => {
  const { until, asked, tmux } = context;
  const one = addWorker(context, "one", "s-one");
  const loose = addWorker(context, "loose", null);
  says(context, "s-one", { status: "busy" });
  attach(context);
  run(context);
  await until(
    "a look at the clients",
    () => asked().some((line) => line.startsWith("display-message")),
  );
  writeFileSync(
    join(tmux, "windows"),
    `${one.id} @1 1\n${loose.id} @2 1\n @0 \n`,
  );
  writeFileSync(join(tmux, "clients"), "1\n");
  says(context, "s-one", { status: "idle" });
  await until(
    "the windows",
    () => asked().some((line) => line.startsWith("respawn-pane")),
  );
  assert.equal(asked().filter((line) => line.startsWith("respawn-pane")), [
    "respawn-pane -k -t @1 exec tail -f /dev/null",
  ]);
  assert.ok(asked().includes("set -w -t @1 @filled 0"));
});

test("NO_COLOR of the terminal leaves no colours", async (context) => {
  const { until, written, asked, tmux } = context;
  addWorker(context, "one", "s-one");
  says(context, "s-one", { status: "waiting" });
  run(context);
  await until("a colour", () => written().includes("\x1b[1;33m"));
  writeFileSync(join(tmux, "environment"), "NO_COLOR=1\n");
  attach(context);
  appendFileSync(
    join(tmux, "notice"),
    "%client-session-changed x $0 hal9000\n",
  );
  says(context, "s-one", { status: "idle" });
  await until("the option", () => asked().includes("set -g @no_color 1"));
  const drawn = () => written().split("\x1b[?1049h").at(-1) ?? "";
  // deno-lint-ignore no-control-regex
  await until("no colours", () => !/\x1b\[[\d;]*3\dm/.test(drawn()));
  assert.match(drawn(), "\x1b[1m");
});

test("each worker has a window, and those of ended workers are closed", async (context) => {
  const { until, asked, tmux } = context;
  const one = addWorker(context, "one", "s-one");
  const two = addWorker(context, "two", "s-two");
  const gone = "f".repeat(64);
  writeFileSync(join(tmux, "windows"), ` @0 0\n${one.id} @1 1\n${gone} @2 2\n`);
  run(context);
  await until("the windows", () => asked().includes("set -g @workers 2"));
  const commands = asked();
  assert.equal(commands.filter((line) => line.startsWith("kill-window")), [
    "kill-window -t @2",
  ]);
  assert.equal(commands.filter((line) => line.startsWith("new-window")), [
    "new-window -d -P -F #{window_id} #{window_index} -t =hal9000: -n two exec tail -f /dev/null",
  ]);
  assert.equal(commands.filter((line) => line.startsWith("set -w")), [
    `set -w -t @9 @worker ${two.id}`,
    "set -w -t @9 remain-on-exit on",
  ]);
});

test("the dashboard rings when a session starts waiting, and not for one that waits already", async (context) => {
  const { until, asked, written, lines } = context;
  addWorker(context, "a-shell", null);
  addWorker(context, "one", "s-one");
  addWorker(context, "two", "s-two");
  says(context, "s-one", { status: "busy" });
  says(context, "s-two", { status: "waiting" });
  run(context);
  await until("the windows", () => asked().includes("set -g @waiting 1"));
  assert.not.ok(written().includes("\x07"));
  const first = () => lines().findIndex((line) => /^\d+ /.test(line));
  await until("the rows", () => first() > 0);
  const order = lines().slice(first(), first() + 3).join();
  assert.match(order, /s-two.*s-one.*a-shell/);
  says(context, "s-one", { status: "waiting", waitingFor: "permission" });
  await until("the bell", () => written().includes("\x07"));
  assert.ok(asked().includes("set -g @waiting 2"));
});

/** The screen of a session that asks for a permission. */
const asking = (command: string) =>
  `${"─".repeat(80)}\n Bash command\n ${command}\n Do you want to proceed?\n` +
  " ❯ 1. Yes\n   2. Yes, and always\n   3. No\n\n Esc to cancel\n";

/** What the workers' screens show, and the answers that were typed, by worker. */
function askEach(context: Context, ...names: string[]) {
  const screens = new Map(names.map((name) => [name, asking(`touch ${name}`)]));
  const typed: string[] = [];
  for (const name of names) {
    addWorker(context, name, `s-${name}`);
    says(context, `s-${name}`, {
      status: "waiting",
      waitingFor: "permission prompt",
    });
  }
  context.engine.run = (command, { name }) => {
    const screen = screens.get(name) ?? "";
    if (command.includes("capture-pane")) {
      return { exitCode: 0, output: screen };
    }
    const [dialog = "", key = ""] = command.slice(-2);
    if (!screen.includes(dialog)) return { exitCode: 9 };
    typed.push(`${name} ${key}`);
    return { exitCode: 0 };
  };
  attach(context);
  run(context);
  return { screens, typed };
}

const shows = ({ lines }: Context, text: string) => () =>
  lines().join("\n").includes(text);

/** Longer than a request must be shown. */
const untilRead = () => sleep(700);

test("y and n answer the request of the selected session, and only that", async (context) => {
  const { until, press, told } = context;
  const { typed } = askEach(context, "one", "two");
  await until("the request", shows(context, "touch one"));
  await untilRead();
  press("\x1b[B");
  await until("the other request", shows(context, "touch two"));
  press("y");
  await until("the refusal", shows(context, "only just appeared"));
  await untilRead();
  press("n");
  await until("the answer", shows(context, 'Denied in "s-two"'));
  press("\x1bOA");
  await until("the request again", shows(context, "touch one"));
  await untilRead();
  press("yy"); // pasted
  await untilRead();
  press("y");
  await until("the answer", shows(context, 'Allowed in "s-one"'));
  assert.equal(typed, ["two 3", "one 1"]);
  assert.equal(told, ['Denied in "s-two"', 'Allowed in "s-one"']);
});

test("a request that has changed or is gone is not answered", async (context) => {
  const { until, press } = context;
  const { screens, typed } = askEach(context, "one");
  await until("the request", shows(context, "touch one"));
  await untilRead();
  screens.set("one", asking("rm -rf /workspace"));
  press("y");
  await until("the refusal", shows(context, "no longer asks this"));
  await until("the new request", shows(context, "rm -rf"));
  await untilRead();
  press("\x1b[A");
  await until("no message", () => !shows(context, "no longer")());
  // The session's files are read again: the dashboard may not have noticed yet.
  says(context, "s-one", { status: "busy" });
  press("y");
  await until(
    "an answer",
    () => shows(context, "no longer asks this")() || typed.length > 0,
  );
  assert.equal(typed, []);
});

test("a request that is not shown to its end is not answered", async (context) => {
  const { until, press } = context;
  const { screens, typed } = askEach(context, "one");
  screens.set("one", asking(Array(30).fill("line").join("\n ")));
  await until("the request", shows(context, "more lines"));
  await untilRead();
  press("y");
  await until("the refusal", shows(context, "longer than this screen"));
  assert.equal(typed, []);
});

test("a session that waits for something else is not answered", async (context) => {
  const { until, press } = context;
  const { typed } = askEach(context, "one");
  says(context, "s-one", { status: "waiting", waitingFor: "input needed" });
  await until("the state", shows(context, "input needed"));
  await untilRead();
  press("y");
  await until("the refusal", shows(context, "no permission request"));
  assert.equal(typed, []);
});

test("Enter opens the window of the selected session, and a shows all terminals", async (context) => {
  const { until, press, asked } = context;
  const { screens } = askEach(context, "one", "two");
  screens.set("two", "the screen \x1b]52;c;x\x07of #{two}");
  await until("the rows", shows(context, "s-two"));
  press("a");
  await until(
    "the terminals",
    shows(context, "the screen \\x1b]52;c;x\\x07of #{two}"),
  );
  press("\r");
  await until("the window", () => asked().includes("select-window -t @9"));
  press("a");
  await until("the table", shows(context, "WAITING FOR"));
});

const windows: [what: string, line: string, fills: boolean][] = [
  ["of a worker is attached when it is viewed", "ID  0", true],
  ["whose program has ended is attached again", "ID 1 1", true],
  ["that is attached stays as it is", "ID 1 0", false],
  ["of no worker stays as it is", " 0 0", false],
  ["with an id that is none stays as it is", "x;reboot 0 0", false],
];

for (const [what, line, fills] of windows) {
  test(`a window ${what}`, async (context) => {
    const { until, asked, tmux } = context;
    const worker = addWorker(context, "one", "s-one");
    writeFileSync(join(tmux, "windows"), `${worker.id} @5 1\n`);
    writeFileSync(
      join(tmux, "window"),
      `${line.replace("ID", worker.id)}\n`,
    );
    appendFileSync(join(tmux, "notice"), "%session-window-changed $0 @5\n");
    run(context);
    const looked = "list-panes -t @5 -F #{@worker} #{@filled} #{pane_dead}";
    await until("a look", () => asked().includes(looked));
    await until("the status", () => asked().includes("set -g @waiting 0"));
    const attached = () =>
      asked().filter((line) => line.startsWith("respawn-pane"));
    if (!fills) return assert.equal(attached(), []);
    await until("the attachment", () => attached().length > 0);
    assert.ok(asked().includes("set -w -t @5 @filled 1"));
    assert.match(
      attached()[0] ?? "",
      "respawn-pane -k -t @5 exec docker exec -it --env=TERM=tmux-256color " +
        `${worker.id} sh -c `,
    );
  });
}

test("the dashboard ends with its tmux", async (context) => {
  const { tmux, until, asked, stop } = context;
  run(context);
  await until("the first commands", () => asked().length > 2);
  process.kill(Number(readFileSync(join(tmux, "pid"), "utf8")));
  await context.running;
  assert.ok(stop.signal.aborted);
});

test("a command that tmux rejects, or that it no longer answers, is a TmuxError", async ({ tmux }) => {
  const notices: string[][] = [];
  writeFileSync(join(tmux, "notice"), "%one two\n");
  const control = new TmuxControl(["tmux"], "x", (words) => {
    notices.push(words);
  });
  const faultOf = (done: Promise<unknown>) =>
    done.then(
      () => "none",
      (error) => error instanceof TmuxError ? error.message : "another",
    );
  assert.equal(await control.ask("list-windows"), []);
  assert.equal(await control.ask("new-window", "it's\n"), ["@9 3"]);
  assert.is(
    readFileSync(join(tmux, "asked"), "utf8"),
    "'list-windows'\n'new-window' 'it'\\''s '\n",
  );
  assert.is(await faultOf(control.ask("kill-window")), "no such window");
  assert.equal(notices, [["one", "two"]]);
  assert.is(await faultOf(control.ask("end")), "tmux has ended");
  await control.ended;
});

test.run();
