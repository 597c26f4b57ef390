// Sessions of version 0.5 are taken over and given back, by the operations of the real mover
// on temporary directories, also when they are interrupted at any point.

import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Journal } from "../../lib/instance/migration-journal.ts";
import { readSession } from "../../lib/instance/session-record.ts";
import { readLogin } from "../../lib/home/login.ts";
import {
  assign,
  directoryOf,
  type SessionProject,
} from "../../lib/migration/conversations.ts";
import type { Move } from "../../lib/migration/move.ts";
import type { Mover } from "../../lib/migration/mover-container.ts";
import { perform } from "../../lib/migration/mover/operations.ts";
import {
  forgetForms,
  returnSessions,
} from "../../lib/migration/session-homes.ts";
import { takeSessions } from "../../lib/migration/sessions.ts";
import { storeCredentials } from "../../lib/migration/shared-config.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  move: Move;
  /** Operations that the mover has performed. */
  done: string[];
  /** Ends the process after this operation, or in the middle of it. */
  kill: { at: number; during?: boolean } | undefined;
  lay: (path: string, text: unknown) => string;
  project: (name: string) => string;
}

const test = suite<Context>("migration: sessions");

class Killed extends Error {}

/** The mover's paths as those of the test's home. */
function mapped(value: unknown, home: string): unknown {
  if (typeof value === "string") {
    return value.replace(/^\/hal9000(?=\/|$)/, home);
  }
  if (Array.isArray(value)) return value.map((item) => mapped(item, home));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, mapped(item, home)]),
  );
}

interface Request {
  path?: string;
  to?: string;
}

/** What an operation leaves that is killed in the middle. */
function leaveHalf(op: string, { path = "", to = "" }: Request): void {
  if (op === "replace") mkdirSync(to, { recursive: true });
  if (op !== "remove" || !existsSync(path)) return;
  const [, ...others] = readdirSync(path).sort();
  for (const name of others) rmSync(join(path, name), { recursive: true });
}

test.before.each((context) => {
  // In memory: each copy is synced, which takes long on a busy disk.
  const { TMPDIR } = process.env;
  if (existsSync("/dev/shm")) process.env["TMPDIR"] = "/dev/shm";
  Object.assign(context, fakeInstance());
  if (TMPDIR === undefined) delete process.env["TMPDIR"];
  else process.env["TMPDIR"] = TMPDIR;
  const { instance, told, root } = context;
  const { home } = instance.home;
  context.done = [];
  context.kill = undefined;
  const lock = {
    do: async (op: string, input: Request) => {
      const { kill, done } = context;
      const isHere = kill?.at === done.length;
      const request = mapped({ op, ...input }, home) as Request;
      if (isHere && kill.during) {
        leaveHalf(op, request);
        throw new Killed();
      }
      const result = await perform(request, () => {});
      done.push(op);
      if (isHere) throw new Killed();
      return result;
    },
  } as unknown as Mover;
  const journal = new Journal(instance, {
    version: 1,
    kind: "migrate",
    stamp: "20260102T030405Z",
    parts: ["claude"],
    skipBackup: false,
    keepVolumes: false,
    backup: null,
    made: [],
    steps: {},
  });
  const track = {
    log: (line: string) => void told.push(line),
    begin: () => () => {},
  };
  context.move = { instance, journal, lock, track };
  context.lay = (path, value) => {
    const full = join(home, "claude", path);
    mkdirSync(dirname(full), { recursive: true });
    const isText = typeof value === "string";
    writeFileSync(full, isText ? value : JSON.stringify(value));
    return full;
  };
  context.project = (name) => {
    const path = join(root, "projects", name);
    mkdirSync(path, { recursive: true });
    return path;
  };
});
test.after.each(({ end }) => end());

const env = { HOME: "/nonexistent", PATH: process.env["PATH"] };
const giveBack = ({ move }: Context, backup: string | null = "b") =>
  returnSessions(move, backup);

const take = ({ move }: Context) => takeSessions(move, env);

function laySession({ lay, instance }: Context, name: string, project: string) {
  lay(`${name}/.claudy-session.json`, {
    name,
    profile: "base",
    project_dir: project,
    created_at: "2026-01-25T10:00:00-08:00",
    shell_mode: false,
    claudy_version: "0.5.0",
  });
  mkdirSync(join(instance.home.claude, name, ".workspace"));
}

/** A home as version 0.5 leaves it: two sessions, and one Claude home for both. */
function layFormerHome(context: Context) {
  const { lay, project } = context;
  const [app, shop] = [project("app"), project("shop")];
  writeFileSync(join(app, "app.ts"), "");
  writeFileSync(join(shop, "shop.py"), "");
  for (const path of [app, shop]) writeFileSync(join(path, "README.md"), "");
  laySession(context, "claudy-app-1", app);
  laySession(context, "claudy-shop-2", shop);
  const say = (file: string) =>
    [
      JSON.stringify({
        cwd: "/workspace",
        input: { file_path: "/workspace/README.md" },
      }),
      JSON.stringify({
        cwd: "/workspace",
        input: { file_path: `/workspace/${file}` },
      }),
      "",
    ].join("\n");
  const at = ".shared-config";
  lay(`${at}/.initialized`, "");
  lay(`${at}/settings.json`, {
    model: "opus",
    hooks: { Stop: [{ hooks: [{ type: "command", command: "evil" }] }] },
  });
  lay(`${at}/agents/reviewer.md`, "review");
  lay(`${at}/.claude.json`, { primaryApiKey: "sk-ant-api03-former" });
  lay(`${at}/projects/-workspace/in-app.jsonl`, say("app.ts"));
  lay(`${at}/projects/-workspace/in-app/subagents/agent-1.jsonl`, "agent\n");
  lay(`${at}/file-history/in-app/x@v1`, "before");
  lay(`${at}/projects/-workspace/in-shop.jsonl`, say("shop.py"));
  lay(`${at}/projects/-workspace/unknown.jsonl`, say("none"));
  lay(
    `${at}/projects/${directoryOf(shop)}/on-host.jsonl`,
    `{"cwd":"${shop}/sub"}\n`,
  );
  return { app, shop };
}

/** Everything of a tree: names, types, modes, owners, times, contents. */
function treeOf(path: string): string {
  const script =
    `cd "$0" && find . -mindepth 1 -printf '%P %y %m %U %G %T@ %l\\n' | sort &&
    find . -type f -print0 | sort -z | xargs -0 -r sha256sum`;
  return execFileSync("sh", ["-ec", script, path], { encoding: "utf8" });
}

/** Names and contents only. */
function contentsOf(path: string): string {
  const script = `cd "$0" && find . -mindepth 1 | sort &&
    find . -type f -print0 | sort -z | xargs -0 -r sha256sum`;
  return execFileSync("sh", ["-ec", script, path], { encoding: "utf8" });
}

test("each session gets its conversations and settings, and the shared home is unchanged", async (context) => {
  const { instance: { home }, told } = context;
  layFormerHome(context);
  const shared = join(home.claude, ".shared-config");
  const before = treeOf(shared);
  const { registered, conversations, left } = await take(context);
  assert.equal([registered, conversations], [2, 3]);
  assert.equal(left, [
    "hooks: they run programs on the host (see --inherit-hooks)",
    "-workspace/unknown.jsonl: its project is unknown",
  ]);
  assert.is(treeOf(shared), before);
  const conversationsOf = (session: string) =>
    execFileSync("ls", [join(home.claude, session, "projects/-workspace")], {
      encoding: "utf8",
    }).trim().split("\n");
  assert.equal(conversationsOf("claudy-app-1"), ["in-app", "in-app.jsonl"]);
  assert.equal(conversationsOf("claudy-shop-2"), [
    ...["in-shop.jsonl", "on-host.jsonl"],
  ]);
  const read = (path: string) => readFileSync(join(home.claude, path), "utf8");
  assert.is(read("claudy-app-1/file-history/in-app/x@v1"), "before");
  assert.equal(JSON.parse(read("claudy-app-1/settings.json")), {
    model: "opus",
  });
  assert.is(read("claudy-shop-2/agents/reviewer.md"), "review");
  // Its API key is for storage, not for sessions.
  assert.not.ok(existsSync(join(home.claude, "claudy-app-1/.claude.json")));
  assert.is(
    readSession(context.instance, "claudy-app-1")?.createdAt,
    "2026-01-25T18:00:00.000Z",
  );
  assert.equal(told, []);
  assert.not.ok(existsSync(join(home.migration, "shared-config")));
});

test("hooks are inherited on request", async (context) => {
  layFormerHome(context);
  context.move.journal.note({ inheritHooks: true });
  const { left } = await take(context);
  assert.is(left.length, 1);
  const path = join(context.instance.home.claude, "claudy-app-1/settings.json");
  assert.match(readFileSync(path, "utf8"), "evil");
});

test("unused sessions get back exactly what they had, after two migrations", async (context) => {
  layFormerHome(context);
  const { instance: { home } } = context;
  const before = treeOf(home.claude);
  for (let round = 0; round < 2; round++) {
    rmSync(home.backups, { recursive: true });
    await take(context);
    const taken = contentsOf(home.claude);
    assert.is((await take(context)).conversations, 0);
    assert.is(contentsOf(home.claude), taken);
    assert.is.not(treeOf(home.claude), before);
    assert.equal(await giveBack(context), [
      ...["claudy-app-1", "claudy-shop-2"],
    ]);
    assert.is(treeOf(home.claude), before, `in round ${round}`);
    assert.not.ok(existsSync(join(home.migration, "sessions/claudy-app-1")));
  }
});

/** Calls `act` again after it was ended at one operation; false if it had ended before. */
async function survives(
  context: Context,
  kill: { at: number; during?: boolean },
  act: () => Promise<unknown>,
): Promise<boolean> {
  context.done.splice(0);
  context.kill = kill;
  const error = await act().then(() => undefined, (error) => error);
  context.kill = undefined;
  if (error !== undefined && !(error instanceof Killed)) throw error;
  if (error) await act();
  return error !== undefined;
}

/** A smaller home: one session with one conversation. */
function laySmallHome(context: Context) {
  const { lay, project } = context;
  laySession(context, "claudy-app-1", project("app"));
  lay(".shared-config/settings.json", { model: "opus" });
  lay(".shared-config/projects/-workspace/old.jsonl", "old\n");
}

for (const during of [false, true]) {
  const moment = during ? "in the middle of" : "after";

  test(`an interruption ${moment} any operation changes nothing in the end`, async (context) => {
    laySmallHome(context);
    const { instance: { home } } = context;
    const before = treeOf(home.claude);
    await take(context);
    const taken = contentsOf(home.claude);
    await giveBack(context);
    for (let at = 0, rest = true; rest; at++) {
      rmSync(home.backups, { recursive: true, force: true });
      const kill = { at, during };
      const killed = await survives(context, kill, () => take(context));
      assert.is(contentsOf(home.claude), taken, `taken, ${at}`);
      rest = await survives(context, kill, () => giveBack(context));
      assert.is(treeOf(home.claude), before, `returned, ${at}`);
      rest ||= killed;
    }
  });

  test(`a session that is used after an interruption ${moment} any operation keeps its home`, async (context) => {
    laySmallHome(context);
    const { instance: { home }, lay } = context;
    const former = join(context.root, "former");
    cpSync(home.claude, former, { recursive: true });
    const session = join(home.claude, "claudy-app-1");
    const shared = join(home.claude, ".shared-config");
    for (let at = 0, rest = true; rest; at++) {
      rmSync(home.backups, { recursive: true, force: true });
      const kill = { at, during };
      const killed = await survives(context, kill, () => take(context));
      lay(`claudy-app-1/projects/-workspace/new.jsonl`, `new ${at}\n`);
      const used = contentsOf(session);
      rest = await survives(context, kill, () => giveBack(context));
      assert.is(contentsOf(session), used, `at ${at}`);
      const given = join(shared, "projects/-workspace/new.jsonl");
      assert.is(readFileSync(given, "utf8"), `new ${at}\n`);
      rest ||= killed;
      // As before the first migration.
      for (const path of [home.claude, join(home.migration, "sessions")]) {
        rmSync(path, { recursive: true, force: true });
      }
      cpSync(former, home.claude, { recursive: true });
      rmSync(home.inherited("claudy-app-1"), { force: true });
    }
  });
}

test("an interrupted migration that is aborted gives the sessions back", async (context) => {
  laySmallHome(context);
  const { instance: { home }, done } = context;
  const before = treeOf(home.claude);
  for (let at = 0, killed = true; killed; at++) {
    done.splice(0);
    context.kill = { at };
    killed = await take(context).then(() => false, () => true);
    context.kill = undefined;
    await giveBack(context, null);
    assert.is(treeOf(home.claude), before, `at ${at}`);
  }
});

test("a session that was used keeps its home, and its conversations go to the shared one", async (context) => {
  layFormerHome(context);
  const { instance: { home }, lay } = context;
  const shared = join(home.claude, ".shared-config/projects/-workspace");
  const metadata = join(home.claude, "claudy-app-1/.claudy-session.json");
  const former = treeOf(join(home.claude, "claudy-shop-2"));
  const before = readFileSync(metadata, "utf8");
  await take(context);
  const continued = join(
    home.claude,
    "claudy-app-1/projects/-workspace/in-app.jsonl",
  );
  const text = readFileSync(continued, "utf8") + "more\n";
  writeFileSync(continued, text);
  lay("claudy-app-1/projects/-workspace/new.jsonl", "new\n");
  lay("claudy-app-1/notes", "own");
  // A worker can change the file that says whose conversations it gets.
  writeFileSync(metadata, before.replace("/app", "/shop"));
  const twice = async () => {
    await giveBack(context);
    assert.is(readFileSync(join(shared, "in-app.jsonl"), "utf8"), text);
    assert.is(readFileSync(join(shared, "new.jsonl"), "utf8"), "new\n");
    assert.is(readFileSync(metadata, "utf8"), before);
    assert.is(readFileSync(continued, "utf8"), text);
    assert.is(
      readFileSync(join(home.claude, "claudy-app-1/notes"), "utf8"),
      "own",
    );
    assert.is(treeOf(join(home.claude, "claudy-shop-2")), former);
  };
  await twice();
  await twice();
  // Version 0.5 continues both; the next migration brings that.
  lay(".shared-config/projects/-workspace/new.jsonl", "new\nnewer\n");
  await take(context);
  const own = join(home.claude, "claudy-app-1/projects/-workspace");
  assert.is(readFileSync(join(own, "new.jsonl"), "utf8"), "new\nnewer\n");
  assert.not.ok(
    existsSync(
      join(home.claude, "claudy-shop-2/projects/-workspace/new.jsonl"),
    ),
  );
});

test("a session cannot name another project to get its conversations", async (context) => {
  layFormerHome(context);
  const { instance: { home }, lay } = context;
  await take(context);
  const metadata = join(home.claude, "claudy-app-1/.claudy-session.json");
  const text = readFileSync(metadata, "utf8");
  writeFileSync(metadata, text.replace("/app", "/shop"));
  const say = '{"file_path":"/workspace/shop.py"}\n';
  lay(".shared-config/projects/-workspace/later.jsonl", say);
  await take(context);
  const has = (session: string) =>
    existsSync(join(home.claude, session, "projects/-workspace/later.jsonl"));
  assert.equal([has("claudy-app-1"), has("claudy-shop-2")], [false, true]);
});

test("sessions that a restored backup has replaced inherit again", async (context) => {
  laySmallHome(context);
  const { instance: { home }, move, root } = context;
  const backup = join(root, "backup");
  cpSync(home.claude, backup, { recursive: true });
  await take(context);
  const taken = contentsOf(home.claude);
  rmSync(home.claude, { recursive: true });
  cpSync(backup, home.claude, { recursive: true });
  await forgetForms(move);
  assert.not.ok(existsSync(join(home.migration, "sessions")));
  await take(context);
  assert.is(contentsOf(home.claude), taken);
});

test("a copy with secrets that an interrupted run has left is removed", async (context) => {
  laySmallHome(context);
  const copy = join(context.instance.home.migration, "shared-config");
  mkdirSync(copy);
  writeFileSync(join(copy, ".claude.json"), "secret");
  assert.equal(await giveBack(context), []);
  assert.not.ok(existsSync(copy));
});

test("the contents of a used session's home are not read, which may be huge", async (context) => {
  layFormerHome(context);
  const { instance: { home }, done, lay } = context;
  await take(context);
  lay("claudy-app-1/huge", "");
  done.length = 0;
  await giveBack(context);
  // One for this session, and two for the unused one.
  assert.is(done.filter((op) => op === "compare").length, 3);
  assert.ok(existsSync(join(home.claude, "claudy-app-1/huge")));
});

test("links in a used session's home are not followed when it is given back", async (context) => {
  layFormerHome(context);
  const { instance: { home }, root, told } = context;
  await take(context);
  const outside = join(root, "outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "secret.jsonl"), "secret");
  const session = join(home.claude, "claudy-app-1");
  rmSync(join(session, "projects"), { recursive: true });
  mkdirSync(join(session, "projects"));
  symlinkSync(outside, join(session, "projects/-workspace"));
  rmSync(join(session, ".claudy-session.json"));
  mkdirSync(join(session, ".claudy-session.json/kept"), { recursive: true });
  await giveBack(context);
  const shared = join(home.claude, ".shared-config/projects/-workspace");
  assert.not.ok(existsSync(join(shared, "secret.jsonl")));
  assert.ok(lstatSync(join(session, ".claudy-session.json")).isFile());
  assert.match(contentsOf(session), /\.claudy-session\.json\.[-\w]+\/kept/);
  assert.equal(told, []);
});

const sessions: SessionProject[] = [
  { name: "a", project: "/p/a" },
  { name: "nested", project: "/p/a/nested" },
  { name: "b", project: "/p/b" },
  { name: "b2", project: "/p/b" },
];

const files = ["/p/a/README.md", "/p/b/README.md", "/p/b/b.ts", "/p/a/a.ts"];

const cases: {
  what: string;
  directory?: string;
  cwds?: string[];
  paths?: string[];
  of?: SessionProject[];
  others?: boolean;
  gets: string[];
}[] = [
  { what: "the only project", of: sessions.slice(0, 1), gets: ["a"] },
  {
    what: "the only known project",
    of: sessions.slice(0, 1),
    others: true,
    gets: [],
  },
  { what: "no evidence", gets: [] },
  { what: "the host's directory", cwds: ["/p/b/sub"], gets: ["b", "b2"] },
  {
    what: "a project whose path is that in the container",
    of: [{ name: "a", project: "/workspace" }, { name: "b", project: "/p/b" }],
    paths: ["/workspace/b.ts"],
    gets: ["b"],
  },
  { what: "a nested project", cwds: ["/p/a/nested/x"], gets: ["nested"] },
  { what: "directories of two projects", cwds: ["/p/a", "/p/b"], gets: [] },
  { what: "the CLI's name of a project", directory: "-p-a", gets: ["a"] },
  {
    what: "another project",
    directory: "-p-c",
    paths: ["/workspace/a.ts"],
    gets: [],
  },
  { what: "a project's file", paths: ["/workspace/b.ts"], gets: ["b", "b2"] },
  {
    what: "common files and a project's own",
    paths: ["/workspace/README.md", "/workspace/a.ts"],
    gets: ["a"],
  },
  { what: "a common file", paths: ["/workspace/README.md"], gets: [] },
  {
    what: "files of two projects",
    paths: ["/workspace/a.ts", "/workspace/b.ts"],
    gets: [],
  },
  {
    what: "a path out of the project",
    paths: ["/workspace/../b/b.ts"],
    gets: [],
  },
];

for (const { what, gets, of = sessions, others = false, ...given } of cases) {
  test(`assign() with ${what}`, () => {
    const conversation = {
      ...{ directory: "-workspace", id: "c", cwds: ["/workspace"], paths: [] },
      ...given,
    };
    const known = {
      has: () => false,
      exists: (path: string) => files.includes(path),
      hasOthers: others,
    };
    const [assigned] = assign([conversation], of, known);
    assert.equal(assigned?.sessions, gets);
  });
}

const holdings: [
  what: string,
  path: string,
  holders: string[],
  gets: string[],
][] = [
  ["the session that has it", "none", ["b2"], ["b", "b2"]],
  ["sessions of two projects that have it", "none", ["a", "b"], []],
  ["its project, although another session has it, too", "a.ts", ["a", "b"], [
    "a",
  ]],
  ["a session that has it, but of another project", "a.ts", ["b"], []],
];

for (const [what, path, holders, gets] of holdings) {
  test(`assign() with ${what}`, () => {
    const conversation = {
      ...{ directory: "-workspace", id: "c", cwds: [] },
      paths: [`/workspace/${path}`],
    };
    const known = {
      has: (session: string) => holders.includes(session),
      exists: (path: string) => files.includes(path),
      hasOthers: false,
    };
    assert.equal(assign([conversation], sessions, known)[0]?.sessions, gets);
  });
}

test("a session cannot plant a conversation in another project", async (context) => {
  layFormerHome(context);
  const { instance: { home }, lay, told } = context;
  await take(context);
  const at = "projects/-workspace";
  const shared = join(home.claude, ".shared-config", at);
  const text = readFileSync(join(shared, "in-shop.jsonl"), "utf8");
  lay(`claudy-app-1/${at}/in-shop.jsonl`, `${text}planted\n`);
  lay(`claudy-app-1/${at}/new.jsonl`, `${text}planted\n`);
  await giveBack(context);
  assert.is(readFileSync(join(shared, "in-shop.jsonl"), "utf8"), text);
  assert.not.ok(existsSync(join(shared, "new.jsonl")));
  for (const name of ["in-shop", "new"]) {
    assert.ok(
      told.some((line) =>
        line.includes(`${name}.jsonl of session "claudy-app-1" is not copied`)
      ),
    );
  }
  await take(context);
  const shop = join(home.claude, "claudy-shop-2", at);
  assert.equal(readdirSync(shop), ["on-host.jsonl"]);
});

test("the key and the login of version 0.5 are stored for all sessions", async (context) => {
  const { instance, lay, move, told } = context;
  layFormerHome(context);
  const claudeAiOauth = {
    ...{ accessToken: "at", refreshToken: "rt", expiresAt: 4_102_444_800_000 },
  };
  lay(".shared-config/.credentials.json", { claudeAiOauth });
  assert.equal(await storeCredentials(move), ["key", "login"]);
  const { home } = instance;
  assert.is(readFileSync(home.anthropicKey, "utf8"), "sk-ant-api03-former");
  assert.is(lstatSync(home.anthropicKey).mode & 0o777, 0o600);
  assert.is(readLogin(home)?.claudeAiOauth.refreshToken, "rt");
  assert.not.ok(existsSync(join(home.migration, "shared-config")));
  lay(".shared-config/.claude.json", {
    primaryApiKey: "sk-ant-oat01-long-lived",
  });
  rmSync(join(home.claude, ".shared-config/.credentials.json"));
  assert.equal(await storeCredentials(move), ["token"]);
  assert.is(readFileSync(home.claudeToken, "utf8"), "sk-ant-oat01-long-lived");
  assert.equal(told, []);
});

test("credentials that are invalid, or links, are not stored", async (context) => {
  const { instance: { home }, lay, move, told, root } = context;
  lay(".shared-config/.claude.json", { primaryApiKey: "two\nlines of text" });
  const secret = join(root, "secret.json");
  writeFileSync(
    secret,
    '{"claudeAiOauth":{"accessToken":"a","refreshToken":"b","expiresAt":1}}',
  );
  symlinkSync(secret, join(home.claude, ".shared-config/.credentials.json"));
  assert.equal(await storeCredentials(move), []);
  assert.equal(told, [
    "warning: the key of version 0.5 is not taken: it is invalid",
  ]);
  assert.not.ok(existsSync(home.anthropicKey));
  assert.is(readLogin(home), undefined);
});

test("links in the shared home are not inherited, but named", async (context) => {
  const { instance: { home }, root } = context;
  layFormerHome(context);
  const shared = join(home.claude, ".shared-config");
  writeFileSync(join(root, "secret"), "secret");
  symlinkSync("/nowhere/at/all", join(shared, "skills"));
  symlinkSync(join(root, "secret"), join(shared, "CLAUDE.md"));
  const { left } = await take(context);
  for (const name of ["skills", "CLAUDE.md"]) {
    assert.ok(left.includes(`${name}: it is a link`), left.join());
    assert.not.ok(existsSync(join(home.claude, "claudy-app-1", name)));
  }
  assert.ok(existsSync(join(home.claude, "claudy-app-1/settings.json")));
});

test("a file that is too large is not inherited", async (context) => {
  const { lay, instance: { home } } = context;
  layFormerHome(context);
  execFileSync("truncate", [
    "-s",
    "300M",
    lay(".shared-config/CLAUDE.md", "x"),
  ]);
  const { left } = await take(context);
  assert.ok(left.includes("CLAUDE.md: it is too large"), left.join());
  assert.not.ok(existsSync(join(home.claude, "claudy-app-1/CLAUDE.md")));
  assert.ok(existsSync(join(home.claude, "claudy-app-1/settings.json")));
});

test.run();
