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
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
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
  [ ! -f "$1" ] || cat "$1"
  echo "%$3 1 1 1"
}
echo "not a notice"
answer none "" end
while IFS= read -r line; do
  echo "$line" >>asked
  case $line in
    "'list-panes' '-s'"*) answer panes "" end ;;
    "'list-panes' '-t' '=hal9000:dashboard'"*) answer layout "" end ;;
    "'list-panes' '-t'"*) answer window "" end ;;
    "'list-clients'"*) answer clients "" end ;;
    "'list-windows'"*) answer windows "" end ;;
    "'new-window'"*) answer none "@9" end ;;
    "'kill-window'"*) answer none "no such window" error ;;
    "'end'"*) exit ;;
    *) answer none "" end ;;
  esac
  if [ -f notice ]; then cat notice; rm notice; fi
done
`;

interface Context extends FakeInstance {
  tmux: string;
  path: string | undefined;
  stop: AbortController;
  running: Promise<void> | undefined;
  pane: number;
  /** The commands that tmux got. */
  asked: () => string[];
  /** What the status pane has shown. */
  status: () => string;
  /** What another pane shows. */
  shown: (pane: string) => string;
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
  const status = join(tmux, "status");
  execFileSync("mkfifo", [status]);
  const write = (name: string, ...lines: string[]) =>
    writeFileSync(join(tmux, name), lines.map((line) => `${line}\n`).join(""));
  write("asked");
  write(
    "panes",
    `status ${status} 4`,
    ` ${join(tmux, "prompt")} 9`,
    `workers ${join(tmux, "workers")} 9`,
    `usage ${join(tmux, "usage")} 2`,
  );
  write("layout", "40 %1", "40 %2", "40 %3", "40 %4");
  context.tmux = tmux;
  context.path = process.env["PATH"];
  process.env["PATH"] = `${tmux}:${context.path}`;
  context.pane = openSync(status, constants.O_RDWR | constants.O_NONBLOCK);
  context.stop = new AbortController();
  context.running = undefined;
  let heard = "";
  const bytes = new Uint8Array(65536);
  context.asked = () =>
    readFileSync(join(tmux, "asked"), "utf8").split("\n").filter(Boolean)
      .map((line) => line.replaceAll("'", ""));
  context.status = () => {
    try {
      const count = readSync(context.pane, bytes);
      heard += new TextDecoder().decode(bytes.subarray(0, count));
    } catch {
      // nothing new
    }
    return heard;
  };
  context.shown = (pane) => {
    try {
      return readFileSync(join(tmux, pane), "utf8");
    } catch {
      return "";
    }
  };
  context.until = (what, probe) =>
    waitFor(async () => Boolean(await probe()), {
      for: what,
      timeoutMs: 5000,
      everyMs: 10,
    });
});

test.after.each(async ({ stop, running, path, pane, end }) => {
  stop.abort();
  await running;
  closeSync(pane);
  process.env["PATH"] = path;
  end();
});

function addWorker(
  { engine, labels }: Context,
  name: string,
  session: string,
): FakeContainer {
  return engine.add(name, {
    spec: {
      Labels: labels({ [label.session]: session, [label.project]: "/p/app" }),
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

/** Lines of a pane without control sequences. */
const linesOf = (text: string) =>
  // deno-lint-ignore no-control-regex
  text.replace(/\x1b\[[?0-9]*[a-zA-Z]/g, "").split("\r\n");

test("the panes show the parent, the workers and, at a terminal, their usage", async (context) => {
  const { engine, until, shown, status, tmux, asked, instance } = context;
  writeDesired(instance, true);
  addWorker(context, "one", "s-one");
  says(context, "s-one", { status: "busy" });
  addWorker(context, "two", "s-two");
  engine.sample = {
    cpu_stats: {
      cpu_usage: { total_usage: 50 },
      system_cpu_usage: 100,
      online_cpus: 1,
    },
    precpu_stats: { cpu_usage: { total_usage: 0 }, system_cpu_usage: 0 },
    memory_stats: { usage: 1024 ** 2 },
    pids_stats: { current: 3 },
  };
  run(context);
  await until("the workers", () => shown("workers").includes("two"));
  await until("the overview", () => status().includes("Sessions"));
  const workers = linesOf(shown("workers"));
  assert.match(workers[0] ?? "", /^WORKER +STATE +PROJECT$/);
  assert.match(workers[1] ?? "", /^one +working +\/p\/app$/);
  assert.match(workers[2] ?? "", /^two +no session +\/p\/app$/);
  assert.ok(shown("workers").startsWith("\x1b[?25l\x1b[?7l\x1b[H"));
  assert.ok(shown("workers").endsWith("\x1b[K\x1b[J"));
  const text = status();
  assert.match(text, "fake-parent, up 2 min, ready after 250 ms");
  assert.match(text, "answers on localhost:8000");
  assert.match(text, "0 warm, 0 claimed");
  assert.match(text, "1 working");
  // Without a terminal, usage is not sampled.
  assert.equal(linesOf(shown("usage")).length, 1);
  writeFileSync(join(tmux, "clients"), "1\n0\n");
  says(context, "s-one", { status: "idle" });
  await until("the usage", () => shown("usage").includes("more"));
  assert.ok(asked().includes("set -g @workers 2"));
  assert.ok(asked().includes("set -g @waiting 0"));
  assert.match(
    readFileSync(join(tmux, "arguments"), "utf8"),
    "-L hal9000 -C attach-session -t =hal9000 -f ignore-size,no-output",
  );
});

test("the panes get their heights once for each height of the window", async (context) => {
  const { until, asked, tmux } = context;
  run(context);
  const resized = () => asked().filter((line) => line.startsWith("resize"));
  await until("the heights", () => resized().length >= 3);
  const first = resized();
  assert.equal(first.map((line) => line.split(" ")[2]), ["%1", "%2", "%3"]);
  assert.equal(first[0], "resize-pane -t %1 -y 4");
  writeFileSync(join(tmux, "layout"), "50 %1\n50 %2\n50 %3\n50 %4\n");
  appendFileSync(join(tmux, "notice"), "%layout-change @0 x\n");
  addWorker(context, "one", "s-one");
  context.engine.emit("start", context.engine.find("one") as FakeContainer);
  await until("other heights", () => resized().length >= 6);
  assert.is(resized().length, 6);
});

test("each worker has a window, and those of ended workers are closed", async (context) => {
  const { until, asked, tmux } = context;
  const one = addWorker(context, "one", "s-one");
  const two = addWorker(context, "two", "s-two");
  const gone = "f".repeat(64);
  writeFileSync(join(tmux, "windows"), ` @0\n${one.id} @1\n${gone} @2\n`);
  run(context);
  await until("the windows", () => asked().includes("set -g @workers 2"));
  const commands = asked();
  assert.equal(commands.filter((line) => line.startsWith("kill-window")), [
    "kill-window -t @2",
  ]);
  assert.equal(commands.filter((line) => line.startsWith("new-window")), [
    "new-window -d -P -F #{window_id} -t =hal9000: -n two exec tail -f /dev/null",
  ]);
  assert.equal(commands.filter((line) => line.startsWith("set -w")), [
    `set -w -t @9 @worker ${two.id}`,
    "set -w -t @9 pane-border-status off",
    "set -w -t @9 remain-on-exit on",
  ]);
});

test("the dashboard rings when a session starts waiting, and not for one that waits already", async (context) => {
  const { until, asked, status } = context;
  addWorker(context, "one", "s-one");
  addWorker(context, "two", "s-two");
  says(context, "s-one", { status: "busy" });
  says(context, "s-two", { status: "waiting" });
  run(context);
  await until("the windows", () => asked().includes("set -g @waiting 1"));
  assert.not.ok(status().includes("\x07"));
  says(context, "s-one", { status: "waiting", waitingFor: "permission" });
  await until("the bell", () => status().includes("\x07"));
  assert.ok(asked().includes("set -g @waiting 2"));
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
    writeFileSync(join(tmux, "windows"), `${worker.id} @5\n`);
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
  assert.equal(await control.ask("new-window", "it's\n"), ["@9"]);
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
