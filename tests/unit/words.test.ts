// The words that people type to name commands, sessions and prompts.

import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { command, runCli } from "../../lib/cli/cli.ts";
import { Io } from "../../lib/cli/io.ts";
import { promptOf } from "../../lib/commands/run.ts";
import { detailRows } from "../../lib/commands/sessions.ts";
import { label } from "../../lib/instance/labels.ts";
import { writeSession } from "../../lib/instance/session-record.ts";
import { sessionName } from "../../lib/project/project.ts";
import { Failure } from "../../lib/std/errors.ts";
import { findSession } from "../../lib/session/find.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { runMain } from "../helper/run-main.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

const test = suite<Served>("words");

test.before.each(async (context) =>
  void Object.assign(context, await serveEngine())
);
test.after.each(({ close }) => close());

function keep({ instance }: Served, name: string, project: string): void {
  const usedAt = "2026-01-01T00:00:00.000Z";
  writeSession(instance, {
    version: 1,
    name,
    project,
    createdAt: usedAt,
    usedAt,
  });
}

function addWorker({ engine, labels }: Served, session: string) {
  const name = `${session}-worker`;
  engine.add(name, {
    spec: { Labels: labels({ [label.session]: session }) },
  });
  return name;
}

test("a session is found by its name, a unique part of it, or its project", (served) => {
  const { instance, project, root } = served;
  const shop = project("shop");
  const api = project("api");
  keep(served, sessionName(shop), shop);
  keep(served, "review", shop);
  keep(served, sessionName(api), api);
  keep(served, "re", api);
  const find = (word: string, cwd = "/") => {
    try {
      return findSession(instance, word, cwd, () => {}).name;
    } catch (error) {
      return (error as Error).message;
    }
  };
  assert.is(find("review"), "review");
  assert.is(find("vie"), "review");
  assert.is(find("re"), "re"); // also a part of another name
  assert.is(find("claudy-shop"), sessionName(shop));
  // A directory's own session comes before names that contain the word.
  keep(served, "shop2", api);
  assert.is(find("shop"), sessionName(shop));
  // A project's default session comes first.
  assert.is(find(shop), sessionName(shop));
  assert.is(find(".", shop), sessionName(shop));
  assert.is(find("../api/", shop), sessionName(api));
  symlinkSync(shop, join(root, "link"));
  assert.is(find("./link", root), sessionName(shop));
  assert.is(
    find("claudy"),
    `"claudy" matches several sessions: ${sessionName(api)} (${api}), ` +
      `${sessionName(shop)} (${shop})`,
  );
  // Names have only letters, digits and dashes.
  const measure = project("Größe");
  keep(served, sessionName(measure), measure);
  assert.is(find("Größe"), sessionName(measure));
  assert.is(find("Grö"), sessionName(measure));
  assert.is(find("./other", root), `There is no session of ${root}/other`);
  assert.is(find("../kept/review"), "There is no session of /kept/review");
  // A project that was removed still names its session.
  keep(served, "gone", join(root, "gone"));
  assert.is(find(join(root, "gone")), "gone");
});

test("an empty list says what to do", async (served) => {
  const { run } = served;
  const none = await run(claudy, ["ls"]);
  assert.is(none.stderr, "There are no sessions. Open one: claudy DIRECTORY\n");
  assert.equal(JSON.parse((await run(claudy, ["ls", "--json"])).stdout), []);
  keep(served, "one", served.project("app"));
  assert.is((await run(claudy, ["ls"])).stderr, "");
  const waiting = await run(claudy, ["ls", "--waiting"]);
  assert.is(waiting.stderr, "No session waits for input\n");
});

test("the rows of a session show numbers in it", () => {
  const rows = detailRows({ name: "one", worker: null, limits: { oom: 2 } });
  assert.equal(rows, [["name", "one"], ["worker", ""], ["limits", "oom 2"]]);
});

test("synonyms stand for commands", async (served) => {
  const { run, project } = served;
  keep(served, "one", project("app"));
  const listed = await run(claudy, ["sessions", "list"]);
  for (const word of ["list", "ls", "ps"]) {
    assert.equal(await run(claudy, [word]), listed);
  }
  const status = await run(claudy, ["status", "--json"]);
  assert.is(JSON.parse(status.stdout).parent, "running");
  const version = await run(claudy, ["version"]);
  assert.equal(version, await run(claudy, ["--version"]));
  const help = await run(claudy, ["help", "sessions", "rm"]);
  assert.equal(help, await run(claudy, ["sessions", "rm", "--help"]));
  assert.is((await run(claudy, ["help", "ls"])).code, 0);
  const unknown = await run(claudy, ["help", "nope"]);
  assert.is(unknown.code, 4);
  assert.match(unknown.stderr, '"nope" is neither a command');
  const gone = await run(claudy, ["rm", "two"]);
  assert.equal(gone, await run(claudy, ["sessions", "rm", "two"]));
  const resumed = await run(claudy, ["resume", "one"]);
  assert.equal(resumed, await run(claudy, ["attach", "one"]));
});

test("a word that is neither a command nor a directory is reported as such", async ({ run, root }) => {
  const ran = await run(claudy, ["atach"]);
  assert.is(ran.code, 4);
  assert.is(
    ran.stderr,
    'error: "atach" is neither a command nor a directory\n' +
      'Did you mean "attach"? ' +
      "See claudy --help. For the sessions: claudy ls\n",
  );
  const path = await run(claudy, [join(root, "none")]);
  assert.match(path.stderr, "there is no such file or directory");
  const withName = await run(claudy, ["atach", "shop"]);
  assert.is(withName.code, 4);
  assert.match(withName.stderr, 'Did you mean "attach"?');
  const two = await run(claudy, [root, "shop"]);
  assert.is(two.code, 2);
  assert.match(two.stderr, 'error: Expected one directory, got also "shop"\n');
});

test("unknown options are reported as typed, with a hint that applies", async ({ run }) => {
  const after = "Put options of the Claude CLI after --. ";
  for (
    const [words, option, hint] of [
      [["--nmae", "x"], "--nmae", 'Did you mean "--name"? See claudy --help.'],
      [["--model", "opus"], "--model", `${after}See claudy --help.`],
      [["--skip-all-of-it"], "--skip-all-of-it", `${after}See claudy --help.`],
      [["-c"], "-c", `${after}See claudy --help.`],
      [["-V"], "-V", 'Did you mean "-v"? See claudy --help.'],
      [["run", "-r", "x"], "-r", `${after}See claudy run --help.`],
      [["sessions", "-a"], "-a", "See claudy sessions --help."],
    ] as [string[], string, string][]
  ) {
    const ran = await run(claudy, words);
    assert.is(ran.code, 2);
    assert.is(ran.stderr, `error: Unknown option ${option}\n${hint}\n`);
  }
});

test("claudy exec shows where to put a command without --", async ({ run }) => {
  const ran = await run(claudy, ["exec", "shop", "npm", "test"]);
  assert.is(ran.code, 2);
  assert.is(
    ran.stderr,
    "error: There is no command after --\n" +
      "Put -- before it: claudy exec shop -- npm test\n",
  );
});

test("wrong options are reported before the missing terminal", async ({ run, project, engine }) => {
  const app = project("app");
  const started = engine.names();
  for (
    const [words, code, says] of [
      [["--profile", "nonsense"], 4, "nonsense"],
      [["--name", "?"], 2, 'Invalid name "?"'],
      [["--mcp", "nothing"], 4, "nothing"],
      [[], 2, "stdin is not a terminal"],
    ] as [string[], number, string][]
  ) {
    const ran = await run(claudy, [...words, app]);
    assert.is(ran.code, code, ran.stderr);
    assert.match(ran.stderr, says);
  }
  assert.equal(engine.names(), started);
});

test("several sessions are stopped together, also if a name is wrong", async (served) => {
  const { run, engine, project } = served;
  for (const name of ["one", "two", "three", "four"]) {
    keep(served, name, project(name));
    addWorker(served, name);
  }
  const wrong = await run(claudy, ["stop", "four", "nobody"]);
  assert.equal([wrong.code, wrong.stdout], [8, "four\n"]);
  assert.is(
    wrong.stderr,
    'error: There is no session or worker "nobody"\nSee the sessions: claudy ls\n',
  );
  assert.is(engine.find("four-worker"), undefined);
  const none = await run(claudy, ["stop", "nobody", "nothing"]);
  assert.equal([none.code, none.stdout], [4, ""]);
  assert.match(
    none.stderr,
    '"nobody"; There is no session or worker "nothing"',
  );
  const two = await run(claudy, ["stop", "one", "tw", "--json"]);
  assert.equal(JSON.parse(two.stdout), [
    { session: "one", stopped: true },
    { session: "two", stopped: true },
  ]);
  const refused = await run(claudy, ["stop", "--all"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "Stop three?");
  const both = await run(claudy, ["stop", "--all", "three"]);
  assert.is(both.code, 2);
  const all = await run(claudy, ["stop", "--all", "--yes"]);
  assert.is(all.stdout, "three\n");
  assert.is(engine.find("three-worker"), undefined);
});

test("sessions are removed together, also if a name is wrong", async (served) => {
  const { run, project } = served;
  for (const name of ["one", "two"]) keep(served, name, project(name));
  const words = ["sessions", "rm", "--yes"];
  const ran = await run(claudy, [...words, "one", "nobody"]);
  assert.equal([ran.code, ran.stdout], [8, "one\n"]);
  assert.match(ran.stderr, 'error: There is no session "nobody"\n');
  const part = await run(claudy, [...words, "tw"]);
  assert.equal([part.code, part.stdout], [6, ""]);
  assert.match(part.stderr, "Type: claudy sessions rm --yes two\n");
  const none = await run(claudy, [...words, "one"]);
  assert.equal([none.code, none.stdout], [4, ""]);
});

test("a worker without a session is stopped by its name, and with --all", async ({ run, engine, labels }) => {
  for (const name of ["loose", "other"]) {
    engine.add(name, { spec: { Labels: labels({}) } });
  }
  const one = await run(claudy, ["stop", "loose"]);
  assert.equal([one.code, one.stdout], [0, "loose\n"]);
  assert.is(engine.find("loose"), undefined);
  const all = await run(claudy, ["stop", "--all", "--yes"]);
  assert.equal([all.code, all.stdout], [0, "other\n"]);
});

test("a partial success has its own exit code and names both parts", async (served) => {
  const { run, engine, project } = served;
  for (const name of ["one", "two"]) {
    keep(served, name, project(name));
    addWorker(served, name);
  }
  engine.refuses.set("remove one-worker", 500);
  const ran = await run(claudy, ["stop", "one", "two"]);
  assert.is(ran.code, 8);
  assert.is(ran.stdout, "two\n");
  assert.match(ran.stderr, /^error: one: /m);
  const alone = await run(claudy, ["stop", "one"]);
  assert.is(alone.code, 1);
});

test("--yes removes only sessions that are named in full", async (served) => {
  const { run, project } = served;
  keep(served, "review", project("app"));
  const ran = await run(claudy, ["sessions", "rm", "rev", "--yes"]);
  assert.is(ran.code, 6);
  assert.match(ran.stderr, "--yes needs the whole name: review");
  const asked = await run(claudy, ["sessions", "rm", "rev"]);
  assert.match(asked.stderr, "Remove session review?");
});

test("words that begin with a dash and contain a space are text", async () => {
  const parsed: unknown[] = [];
  const cli = command("x");
  cli.command("[...words]", "x").option("-f, --file <file>", "x")
    .action((words, { file }) => void parsed.push(words, file));
  const argv = ["- item", "--file=a b", "-x y", "-", "plain"];
  assert.is(await runCli(cli, argv, new Io()), 0);
  assert.equal(parsed, [["- item", "-x y", "-", "plain"], "a b"]);
});

test("an error that contains megabytes of a worker's output is cut", async () => {
  const fail = async (_argv: string[], io?: Io) => {
    const cli = command("x");
    cli.command("", "x").action(() => {
      throw new Failure("failed", `Cannot send: ${"\x1b]".repeat(1e6)}`);
    });
    return await runCli(cli, [], io as Io);
  };
  const { code, stderr } = await runMain(fail, []);
  assert.is(code, 1);
  assert.match(stderr, "error: Cannot send: \\x1b]");
  assert.ok(stderr.length < 20_000, String(stderr.length));
});

test("claudy run joins the words of a prompt, or reads it from a file or stdin", async ({ root }) => {
  const asked = async (
    words: string[],
    { stdin = "", file }: { stdin?: string; file?: string } = {},
  ) => {
    let prompt = "";
    const ran = await runMain(
      async (_argv, io) => {
        const cli = command("x");
        cli.command("", "x").action(async () => {
          prompt = await promptOf(io as Io, words, file);
        });
        return await runCli(cli, [], io as Io);
      },
      [],
      { stdin },
    );
    return ran.code === 0 ? prompt : ran.stderr;
  };
  assert.is(await asked(["explain", "this"]), "explain this");
  assert.is(await asked([], { stdin: "from stdin" }), "from stdin");
  assert.is(await asked(["-"], { stdin: "from stdin" }), "from stdin");
  assert.is(await asked(["about", "it"], { stdin: "unread" }), "about it");
  const file = join(root, "prompt");
  writeFileSync(file, "from a file");
  assert.is(await asked([], { file }), "from a file");
  assert.is(await asked([], { file: "-", stdin: "s" }), "s");
  assert.match(
    await asked(["x"], { file }),
    "--file and a prompt exclude each other",
  );
  assert.match(await asked([], { stdin: " \n" }), "There is no prompt");
  const missing = await asked([], { file: join(root, "no") });
  assert.match(missing, "Cannot read");
  assert.not.match(missing, "HAL9000_HOME");
  assert.match(missing, "\nCheck the path of --file");
});

test("a directory with the name of a command is opened by its path", async ({ run, root }) => {
  mkdirSync(join(root, "list"));
  const ran = await run(claudy, [join(root, "list")]);
  assert.match(ran.stderr, "stdin is not a terminal");
});

test.run();
