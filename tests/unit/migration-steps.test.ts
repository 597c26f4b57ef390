// The steps of a migration and of a rollback, with a fake mover that only records what it
// is asked, and the checks before them.

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import {
  Journal,
  type JournalState,
  readJournal,
} from "../../lib/instance/migration-journal.ts";
import { label } from "../../lib/instance/labels.ts";
import {
  refuseOthers,
  refuseUsers,
  refuseWorkers,
  refuseWriters,
} from "../../lib/migration/checks.ts";
import { abortable } from "../../lib/migration/abort.ts";
import {
  backUp,
  backUpVolumes,
  copyInSteps,
  hasManifest,
  verify,
} from "../../lib/migration/copy.ts";
import { writeMigrated } from "../../lib/migration/migrated.ts";
import {
  backUpSource,
  copySource,
  makeVolumes,
  readSource,
  vacateVolumes,
} from "../../lib/migration/migrate-steps.ts";
import {
  endMove,
  freeStamp,
  type Move,
  refuseOtherOption,
} from "../../lib/migration/move.ts";
import type { Mover } from "../../lib/migration/mover-container.ts";
import { planRemoval } from "../../lib/migration/remove-source.ts";
import {
  chooseParts,
  keepManifest,
  readSource as readCurrent,
  saveCurrent,
  stageParts,
  stopAll,
  swapParts,
} from "../../lib/migration/rollback-steps.ts";
import {
  emptyVolumes,
  removeCopied,
} from "../../lib/migration/rollback-volumes.ts";
import { listen } from "../../lib/std/socket-lines.ts";
import { Failure } from "../../lib/std/errors.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  move: Move;
  /** What the mover was asked, with its paths and parts. */
  asked: string[];
  /** Phases that were begun. */
  phases: string[];
  /** Answers of the mover by operation, or a function of its input. */
  answers: Record<string, unknown>;
  mover: Mover;
  /** The parts of a journal. */
  note: (change: Partial<JournalState>) => void;
}

const test = suite<Context>("migration: steps");

const stamp = "20260102T030405Z";

interface Input {
  at?: string;
  from?: string;
  to?: string;
  path?: string;
  parts?: string[];
  manifest?: string;
  kind?: string;
  contents?: boolean;
}

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const { instance, told } = context;
  mkdirSync(instance.home.migration, { recursive: true });
  context.asked = [];
  context.phases = [];
  context.answers = { compare: { count: 0, first: [] }, withData: [] };
  context.mover = {
    do: (name: string, input: Input) => {
      const { from, to, path, at, parts, manifest, kind } = input;
      const words = [from, to, path, at, parts?.join("+"), manifest, kind];
      context.asked.push([name, ...words.filter(Boolean)].join(" "));
      const answer = context.answers[name];
      const result = typeof answer === "function" ? answer(input) : answer;
      return Promise.resolve(result);
    },
  } as unknown as Mover;
  const journal = new Journal(instance, {
    version: 1,
    kind: "migrate",
    stamp,
    parts: ["membank", "plugins"],
    skipBackup: false,
    keepVolumes: false,
    backup: null,
    made: [],
    steps: {},
  });
  context.note = (change) => journal.note(change);
  context.move = {
    instance,
    journal,
    lock: context.mover,
    track: {
      log: (line) => void told.push(line),
      begin: (what) => {
        context.phases.push(what);
        return () => {};
      },
    },
  };
});
test.after.each(({ end }) => end());

const refusal = (done: Promise<unknown>) =>
  done.then(
    () => assert.unreachable(),
    (error: Failure) => [error.kind, error.message, error.hint ?? ""],
  ) as Promise<string[]>;

const copies = {
  what: "the copy",
  from: "/from",
  at: "/to",
  parts: ["membank", "plugins"],
  manifest: "/m.json",
};

const differing = { count: 5, first: ["a: missing", "b: content"] };

/** The existing volumes, with their ids. */
function addVolumes(
  { engine, instance: { names } }: Context,
  ...keys: string[]
) {
  for (const key of keys) {
    const Name = names.volumes[key as keyof typeof names.volumes];
    engine.volumes.set(Name, { Name, Labels: { [label.volume]: `id-${key}` } });
  }
}

test("a verification names the first differences and counts the others", async ({ move, mover, answers }) => {
  answers["compare"] = differing;
  const [kind, message, hint] = await refusal(verify(move, mover, copies));
  assert.is(kind, "failed");
  assert.is(
    message,
    "Verification failed for the copy: a: missing; b: content and 3 more",
  );
  assert.match(hint ?? "", "No data was lost. Stop what writes to the data");
  answers["compare"] = { ...differing, count: 2 };
  const all = await refusal(verify(move, mover, copies));
  assert.match(all[1] ?? "", /b: content$/);
});

test("copies report each part as a phase, and read contents when they are checked", async (context) => {
  const { move, mover, phases, asked, answers } = context;
  const contents: unknown[] = [];
  answers["compare"] = (input: Input) => {
    contents.push(input.contents);
    return { count: 0, first: [] };
  };
  await copyInSteps(move, mover, copies);
  assert.equal(phases, [
    ...["Copying membank", "Copying plugins", "Checking the copy"],
  ]);
  assert.equal(asked, [
    "replace /from/membank /to/membank",
    "replace /from/plugins /to/plugins",
    "compare /to membank+plugins /m.json",
  ]);
  await backUp(move, mover, copies);
  assert.equal(phases.slice(3), [
    ...["Backing up membank", "Backing up plugins", "Checking the copy"],
  ]);
  assert.equal(contents, [true, true]);
});

test("a copy that fails before its check is continued, not started over", async ({ move, mover, note, answers }) => {
  note({ steps: { manifest: "done" } });
  answers["replace"] = ({ to }: Input) => {
    if (to === "/to/plugins") throw new Error("the disk is full");
  };
  const [, message] = await refusal(copyInSteps(move, mover, copies));
  assert.is(message, "the disk is full");
  assert.equal(move.journal.state.steps, {
    manifest: "done",
    "copy:membank": "done",
    "copy:plugins": "begun",
  });
});

test("the existing volumes are backed up with a manifest of their own", async (context) => {
  const { move, mover, asked, phases, instance } = context;
  addVolumes(context, "plugins", "chromadb");
  await backUpVolumes(move, mover, { backup: "b", kind: "force" });
  assert.is(phases[0], "Reading the volumes");
  assert.is(phases.at(-1), "Checking the backup of the volumes");
  assert.equal(asked, [
    "manifest /hal9000/migration/volumes.json /volumes chromadb+plugins force",
    "remove /hal9000/backups/b/manifest.json",
    "replace /volumes/chromadb /hal9000/backups/b/chromadb",
    "replace /volumes/plugins /hal9000/backups/b/plugins",
    "compare /hal9000/backups/b chromadb+plugins /hal9000/migration/volumes.json",
    "replace /hal9000/migration/volumes.json /hal9000/backups/b/manifest.json.tmp",
    "rename /hal9000/backups/b/manifest.json.tmp /hal9000/backups/b/manifest.json",
  ]);
  assert.is(hasManifest(instance, "b"), false);
  mkdirSync(join(instance.home.backups, "b"));
  writeFileSync(join(instance.home.backups, "b", "manifest.json"), "");
  assert.is(hasManifest(instance, "b"), true);
});

test("migrate reads its source once, and starts over if it has changed since", async (context) => {
  const { move, asked, note, told, answers, instance: { home } } = context;
  note({ parts: ["membank", "claude"], backup: "pre-dind-x" });
  await readSource(move);
  const manifest =
    "manifest /hal9000/migration/manifest.json /hal9000 membank+claude migrate";
  assert.equal(asked, [manifest]);
  writeFileSync(join(home.migration, "manifest.json"), "");
  await readSource(move);
  const compare =
    "compare /hal9000 membank+claude /hal9000/migration/manifest.json";
  assert.equal(asked.slice(1), [compare]);
  note({
    steps: {
      ...{ manifest: "done", volumes: "done", save: "done", empty: "done" },
      ...{ backup: "done", "copy:membank": "done" },
    },
  });
  answers["compare"] = differing;
  await readSource(move);
  // Sessions may change after their backup.
  assert.is(
    asked[2],
    "compare /hal9000 membank /hal9000/migration/manifest.json",
  );
  assert.is(asked[3], manifest);
  assert.equal(Object.keys(move.journal.state.steps), [
    ...["volumes", "save", "empty", "manifest"],
  ]);
  assert.equal(told, [
    "Changed since the last run (a: missing): starting over",
  ]);
  assert.match(move.journal.state.backup ?? "", /^pre-dind-\d{8}T\d{6}Z$/);
  // They were changed by the migration itself.
  note({ skipBackup: true });
  asked.splice(0);
  await readSource(move);
  assert.match(asked[0] ?? "", /^compare \/hal9000 membank /);
  note({ skipBackup: false });
  asked.splice(0, asked.length, "", "", "", "");
  note({ steps: { manifest: "done", start: "begun" } });
  await readSource(move);
  assert.is(asked.length, 4);
});

test("migrate makes a backup unless it was told not to", async ({ move, asked, note }) => {
  await backUpSource(move);
  note({ backup: "b", skipBackup: true });
  await backUpSource(move);
  assert.equal(asked, []);
  note({ skipBackup: false });
  await backUpSource(move);
  assert.is(asked[1], "replace /hal9000/membank /hal9000/backups/b/membank");
  assert.is(move.journal.isDone("backup"), true);
});

test("migrate stops the daemon, makes missing volumes and remembers which it made", async (context) => {
  const { move, engine, labels, told } = context;
  addVolumes(context, "plugins");
  const worker = engine.add("busy", { spec: { Labels: labels() } });
  const [kind, message, hint] = await refusal(makeVolumes(move));
  assert.equal([kind, message, hint], [
    "busy",
    "Workers are running: busy",
    "Stop them first: claudy stop --all",
  ]);
  worker.state = "exited";
  await makeVolumes(move);
  assert.not.ok(engine.find("fake-parent"));
  assert.equal([...engine.volumes.keys()].sort(), [
    ...["fake-chromadb", "fake-memorybank", "fake-plugins"],
  ]);
  assert.equal(move.journal.state.made.toSorted(), [
    ...["fake-chromadb", "fake-memorybank"],
  ]);
  assert.is(move.journal.isDone("volumes"), true);
  assert.equal(told, []);
});

test("migrate overwrites volumes with data only with --force, after a backup of them", async (context) => {
  const { move, mover, asked, answers, instance: { home } } = context;
  addVolumes(context, "plugins", "memorybank");
  answers["withData"] = ["plugins"];
  const refused = await refusal(vacateVolumes(move, mover, { force: false }));
  assert.match(refused[1] ?? "", "plugins");
  assert.not.ok(asked.some((what) => /^(empty|replace)/.test(what)));
  answers["rename"] = () => {
    const path = join(home.backups, `pre-force-${stamp}`);
    mkdirSync(path);
    writeFileSync(join(path, "manifest.json"), "");
  };
  asked.splice(0);
  await vacateVolumes(move, mover, { force: true });
  assert.match(asked[1] ?? "", / \/volumes membank\+plugins force$/);
  assert.equal(asked.slice(-2), [
    "empty /volumes/membank",
    "empty /volumes/plugins",
  ]);
  // Resumed before the volumes were empty: the backup is complete and stays.
  asked.splice(0);
  move.journal.forget(["save", "empty"]);
  await vacateVolumes(move, mover, { force: true });
  assert.equal(asked, ["empty /volumes/membank", "empty /volumes/plugins"]);
});

test("migrate empties no volumes if they have no data", async (context) => {
  addVolumes(context, "plugins");
  await vacateVolumes(context.move, context.mover, { force: true });
  assert.not.ok(context.asked.some((what) => what.startsWith("empty")));
});

test("migrate leaves volumes with data alone if it moves only sessions", async (context) => {
  addVolumes(context, "plugins");
  context.answers["withData"] = ["plugins"];
  context.note({ parts: ["claude"] });
  await vacateVolumes(context.move, context.mover, { force: true });
  assert.equal(context.asked, []);
});

test("migrate copies everything but the sessions into the volumes", async ({ move, mover, note, asked }) => {
  note({ parts: ["claude", "membank"] });
  await copySource(move, mover);
  assert.equal(asked, [
    "replace /hal9000/membank /volumes/membank",
    "compare /volumes membank /hal9000/migration/manifest.json",
  ]);
});

test("rollback stops sessions, other workers and the daemon", async (context) => {
  const { move, engine, labels } = context;
  engine.add("free", { spec: { Labels: labels() } });
  engine.add("held", { spec: { Labels: labels({ [label.session]: "s" }) } });
  const commands: string[] = [];
  engine.run = (command, { name }) => {
    commands.push(`${name}: ${command.join(" ")}`);
    return { exitCode: 0 };
  };
  await stopAll(move);
  assert.not.ok(engine.find("free"));
  assert.not.ok(engine.find("held"));
  assert.not.ok(engine.find("fake-parent"));
  assert.ok(commands.some((line) => /^held: .*kill -s HUP/s.test(line)));
  assert.not.ok(commands.some((line) => /^free: .*kill -s HUP/s.test(line)));
});

test("rollback decides again which parts to restore, until it has read them", async (context) => {
  const { move, mover, note, instance } = context;
  addVolumes(context, "chromadb", "plugins");
  const choose = () => chooseParts(move, mover, { replaceLocal: false });
  note({ kind: "rollback", migrated: ["chromadb", "plugins"] });
  for (const name of ["chromadb", "plugins"]) {
    mkdirSync(join(instance.home.home, name));
  }
  await choose();
  assert.equal(move.journal.state.parts, ["chromadb", "plugins"]);
  note({ parts: [], backup: "b" });
  await choose();
  assert.equal(move.journal.state.parts, []);
  note({ backup: null, steps: { manifest: "begun" } });
  await choose();
  assert.equal(move.journal.state.parts, []);
});

test("a rollback that would replace current data forgets its journal, and other errors keep it", async (context) => {
  const { move, mover, note, answers, instance } = context;
  addVolumes(context, "plugins");
  const choose = () => chooseParts(move, mover, { replaceLocal: false });
  note({ kind: "rollback" });
  answers["withData"] = () => {
    throw new Error("killed");
  };
  await refusal(choose());
  assert.ok(readJournal(instance));
  answers["withData"] = ["plugins"];
  const [kind, message, hint] = await refusal(choose());
  assert.is(kind, "unsafe");
  assert.match(
    message ?? "",
    `other data: ${join(instance.home.home, "plugins")}`,
  );
  assert.match(hint ?? "", "migrate --force");
  assert.match(hint ?? "", "rollback --replace-local");
  assert.is(readJournal(instance), undefined);
});

test("rollback gives ChromaDB's files to the user of version 0.5 before it reads them", async ({ move, mover, note, asked }) => {
  note({ kind: "rollback", parts: ["chromadb", "plugins"] });
  await readCurrent(move, mover);
  assert.is(asked.length, 2);
  assert.match(asked[0] ?? "", /^give \d+ \/volumes\/chromadb$/);
  assert.is(
    asked[1],
    "manifest /hal9000/migration/rollback.json /volumes chromadb+plugins rollback",
  );
  note({ parts: ["plugins"], steps: {} });
  asked.splice(0);
  await readCurrent(move, mover);
  assert.is(asked.length, 1);
  note({ parts: ["chromadb"], backup: "b", steps: {} });
  asked.splice(0);
  await readCurrent(move, mover);
  assert.equal(asked, [
    "replace /hal9000/backups/b/manifest.json /hal9000/migration/rollback.json",
  ]);
  // Its manifest has no checksums.
  note({ backup: "pre-dind-20260126-101112", steps: {} });
  asked.splice(0);
  await readCurrent(move, mover);
  assert.equal(asked, [
    "manifest /hal9000/migration/rollback.json " +
    "/hal9000/backups/pre-dind-20260126-101112 chromadb rollback",
  ]);
});

test("a restored backup saves the volumes' data first, unless they are kept", async (context) => {
  const { move, mover, note, asked } = context;
  addVolumes(context, "plugins");
  note({ kind: "rollback" });
  await saveCurrent(move, mover);
  note({ backup: "b", keepVolumes: true });
  await saveCurrent(move, mover);
  assert.equal(asked, []);
  note({ keepVolumes: false });
  await saveCurrent(move, mover);
  const at = `/hal9000/backups/pre-rollback-${stamp}/volumes`;
  assert.is(asked.at(-1), `rename ${at}/manifest.json.tmp ${at}/manifest.json`);
  assert.match(asked[0] ?? "", / rollback$/);
  asked.splice(0);
  note({ steps: {} });
  await stageParts(move, mover);
  assert.equal(asked, [
    "replace /hal9000/backups/b/membank /hal9000/migration/membank",
    "replace /hal9000/backups/b/plugins /hal9000/migration/plugins",
    "compare /hal9000/migration membank+plugins /hal9000/migration/rollback.json",
  ]);
});

test("without volumes, a restored backup saves and compares nothing", async (context) => {
  const { move, mover, note, asked } = context;
  note({ kind: "rollback", backup: "b" });
  await saveCurrent(move, mover);
  assert.equal(asked, []);
  await emptyVolumes(move, mover);
  assert.equal(asked, ["withData /volumes", "withData /volumes"]);
});

test("rollback swaps each part with the local directory, and checks them all", async (context) => {
  const { move, mover, note, asked, instance: { home } } = context;
  note({ kind: "rollback", parts: ["chromadb", "membank", "plugins"] });
  const kept = `pre-rollback-${stamp}`;
  for (const name of ["membank", "plugins"]) {
    mkdirSync(join(home.migration, name));
    mkdirSync(join(home.home, name));
  }
  // It was moved away by an interrupted run, and recreated since.
  mkdirSync(join(home.backups, kept, "plugins"), { recursive: true });
  await swapParts(move, mover);
  assert.equal(asked, [
    `rename /hal9000/membank /hal9000/backups/${kept}/membank`,
    "rename /hal9000/migration/membank /hal9000/membank",
    `rename /hal9000/plugins /hal9000/backups/${kept}/plugins.later`,
    "rename /hal9000/migration/plugins /hal9000/plugins",
    "compare /hal9000 chromadb+membank+plugins /hal9000/migration/rollback.json",
  ]);
  assert.ok(move.journal.isDone("swap:chromadb"));
  // In a resumed run the directories may be in use already: they are not compared.
  asked.splice(0);
  await swapParts(move, mover);
  assert.equal(asked, []);
});

test("rollback puts a part where no directory was", async ({ move, mover, note, asked, instance: { home } }) => {
  note({ kind: "rollback", parts: ["membank"] });
  mkdirSync(join(home.migration, "membank"));
  await swapParts(move, mover);
  assert.is(asked[0], "rename /hal9000/migration/membank /hal9000/membank");
});

test("replaced directories get a manifest, so that they are a regular backup", async (context) => {
  const { move, mover, asked, phases, instance: { home } } = context;
  const kept = `pre-rollback-${stamp}`;
  await keepManifest(move, mover);
  assert.equal(asked, []);
  move.journal.forget(["keep"]);
  for (const name of ["plugins", "unused-sessions", "other"]) {
    mkdirSync(join(home.backups, kept, name), { recursive: true });
  }
  await keepManifest(move, mover);
  const at = `/hal9000/backups/${kept}`;
  assert.equal(asked, [
    `manifest ${at}/manifest.json ${at} plugins+unused-sessions rollback`,
  ]);
  assert.equal(phases, ["Reading what was replaced"]);
  await keepManifest(move, mover);
  assert.is(asked.length, 1);
});

test("rollback empties the volumes that it has copied, and names those with data", async (context) => {
  const { move, mover, note, asked, answers } = context;
  addVolumes(context, "chromadb", "plugins", "memorybank");
  note({ kind: "rollback", parts: ["plugins"], keepVolumes: true });
  assert.equal(await emptyVolumes(move, mover), []);
  note({ keepVolumes: false });
  answers["withData"] = ["chromadb"];
  assert.equal(await emptyVolumes(move, mover), ["chromadb"]);
  assert.is(
    asked[0],
    "compare /volumes plugins /hal9000/migration/rollback.json",
  );
  // What was not copied and has data stays.
  assert.equal(asked.filter((what) => what.startsWith("empty")), [
    "empty /volumes/membank",
    "empty /volumes/plugins",
  ]);
  // With a backup, everything was saved.
  note({ backup: "b", steps: {} });
  asked.splice(0);
  await emptyVolumes(move, mover);
  assert.is(
    asked[0],
    "compare /volumes chromadb+membank+plugins " +
      `/hal9000/backups/pre-rollback-${stamp}/volumes/manifest.json`,
  );
  assert.is(asked.filter((what) => what.startsWith("empty")).length, 3);
});

test("volumes that changed after their copy are not emptied: the rollback starts over", async (context) => {
  const { move, mover, note, asked, answers } = context;
  addVolumes(context, "plugins");
  note({ kind: "rollback", steps: { stop: "done", verify: "done" } });
  answers["compare"] = differing;
  const [kind, message, hint] = await refusal(emptyVolumes(move, mover));
  assert.is(kind, "busy");
  assert.is(
    message,
    "Volumes changed since they were copied: a: missing; b: content",
  );
  assert.match(hint ?? "", "Stop what writes to the volumes");
  assert.equal(move.journal.state.steps, { stop: "done" });
  assert.is.not(move.journal.state.stamp, stamp);
  assert.not.ok(asked.some((what) => what.startsWith("empty")));
  // An interrupted run has begun to empty them.
  note({ steps: { empty: "begun" } });
  await emptyVolumes(move, mover);
  assert.ok(asked.includes("empty /volumes/plugins"));
});

test("only empty volumes are removed, with a warning for each other", async (context) => {
  const { move, note, told, engine } = context;
  addVolumes(context, "chromadb", "plugins");
  note({ keepVolumes: true });
  assert.equal(await removeCopied(move, []), []);
  note({ keepVolumes: false });
  assert.equal(await removeCopied(move, ["chromadb"]), ["fake-plugins"]);
  assert.equal(told, [
    "warning: the volume of chromadb contains data; keeping it",
  ]);
  assert.equal([...engine.volumes.keys()], ["fake-chromadb"]);
});

test("the stamp of a backup is not taken, and the end of a move removes its files", ({ move, note, instance }) => {
  const { home } = instance;
  const first = freeStamp(instance, ["pre-dind", "pre-force"]);
  assert.match(first, /^\d{8}T\d{6}Z$/);
  // Whatever second it is then.
  const now = Date.now();
  for (let second = 0; second < 10; second++) {
    const at = new Date(now + second * 1000).toISOString();
    const taken = at.replace(/[-:]|\.\d+/g, "");
    mkdirSync(join(home.backups, `pre-force-${taken}`));
    mkdirSync(join(home.backups, `pre-force-${taken}-2`));
  }
  assert.match(freeStamp(instance, ["pre-dind", "pre-force"]), /Z-3$/);
  assert.match(freeStamp(instance, ["pre-dind"]), /Z$/);
  note({});
  for (const name of ["manifest.json", "volumes.json", "rollback.json"]) {
    writeFileSync(join(home.migration, name), "");
  }
  endMove(move);
  assert.is(readJournal(instance), undefined);
  const left = (name: string) => existsSync(join(home.migration, name));
  assert.not.ok(left("manifest.json") || left("volumes.json"));
  assert.ok(left("rollback.json"));
});

test("an interrupted move is resumed only with its own options", ({ move: { journal }, note }) => {
  refuseOtherOption(journal, undefined);
  refuseOtherOption(undefined, "--force");
  const hintOf = () => {
    try {
      refuseOtherOption(journal, "--force");
    } catch (error) {
      const { kind, message, hint } = error as Failure;
      return `${kind}: ${message}; ${hint}`;
    }
    return "";
  };
  assert.is(
    hintOf(),
    "usage: The interrupted migration was started without --force; " +
      "Resume it without that option: hal9000-migrate, or start over: hal9000-migrate --abort",
  );
  note({ kind: "rollback" });
  assert.match(hintOf(), /without that option: hal9000-rollback$/);
});

test("a migration can be aborted until the daemon runs on the new data", ({ instance, note }) => {
  const refused = () => {
    try {
      abortable(instance);
    } catch (error) {
      return (error as Failure).message;
    }
    return undefined;
  };
  assert.is(refused(), "There is no interrupted migration");
  note({});
  assert.is(refused(), undefined);
  note({ steps: { start: "begun" } });
  assert.is(refused(), "The daemon already runs on the new data");
});

test("the source is removed only after a migration with a backup", async ({ instance, root, note, move }) => {
  const { home } = instance;
  const plan = () => planRemoval(instance);
  const none = await refusal(plan());
  assert.is(none[1], "No finished migration found");
  writeMigrated(instance, { stamp, backup: null });
  assert.is(
    (await refusal(plan()))[1],
    "The migration was run without a backup",
  );
  writeMigrated(instance, { stamp, backup: join(root, "b") });
  assert.is((await refusal(plan()))[1], "There are no directories to remove");
  mkdirSync(join(home.home, "plugins"));
  assert.equal(await plan(), [join(home.home, "plugins")]);
  note({});
  assert.is((await refusal(plan()))[1], "No finished migration found");
  move.journal.remove();
});

test("data behind a link, or of a running gateway, is not moved", async ({ instance }) => {
  const { home } = instance;
  const refused = () => refusal(refuseOthers(instance, []));
  const membank = join(home.home, "membank");
  writeFileSync(membank, "");
  const [kind, message, hint] = await refused();
  assert.equal([kind, message], ["unsafe", `"${membank}" is not a directory`]);
  assert.match(hint ?? "", "Replace it with the directory itself");
  rmSync(membank);
  symlinkSync("claude", membank);
  assert.is((await refused())[1], `"${membank}" is a link`);
  rmSync(membank);
  mkdirSync(membank);
  const shared = join(home.claude, ".shared-config");
  symlinkSync("/elsewhere", shared);
  assert.is((await refused())[1], `"${shared}" is a link`);
  rmSync(shared);
  await refuseOthers(instance, []);
  mkdirSync(join(home.mcpControl, ".."), { recursive: true });
  const gateway = await listen(
    home.mcpControl,
    () => Promise.resolve({ pid: 1, tunnels: null, servers: [] }),
  );
  const busy = await refused();
  await gateway.close();
  assert.equal(busy, [
    "busy",
    "The MCP gateway is running and uses the memory bank",
    "Stop it first: claudy mcp stop",
  ]);
});

interface Mounted {
  Name?: string;
  Source?: string;
  RW?: boolean;
}

const users: [what: string, mount: Mounted, own: boolean, refused: boolean][] =
  [
    ["a volume of this instance", { Name: "fake-plugins" }, false, true],
    ["another volume", { Name: "other" }, false, false],
    ["the home", { Source: "HOME" }, false, true],
    ["a directory above the home", { Source: "HOME/.." }, false, true],
    ["a moved directory", { Source: "/data/plugins" }, false, true],
    ["a directory in a moved one", { Source: "/data/plugins/x" }, false, true],
    ["another directory", { Source: "/data/other" }, false, false],
    ["the home, read-only", { Source: "HOME", RW: false }, false, false],
    ["the home, as a part of the instance", { Source: "HOME" }, true, false],
  ];

for (const [what, mount, own, refused] of users) {
  test(`a container with ${what} ${refused ? "keeps" : "does not keep"} data from being moved`, async ({ instance }) => {
    const home = instance.hostHome.home;
    const source = mount.Source?.replace("HOME/..", join(home, ".."))
      .replace("HOME", home);
    const docker = {
      listContainers: () =>
        Promise.resolve([{
          Names: ["/user"],
          Labels: { [label.instance]: own ? "fake" : "other" },
          Mounts: [{ RW: true, ...mount, Source: source ?? "" }],
        }]),
    } as unknown as Docker;
    const check = refuseUsers({ ...instance, docker }, ["/data/plugins"]);
    if (!refused) return await check;
    assert.equal(await refusal(check), [
      "busy",
      "In use by containers: user",
      "Stop them first: docker stop user",
    ]);
  });
}

test("files that are open for writing, or locked, keep data from being moved", async ({ root }) => {
  const path = join(root, "data.txt");
  writeFileSync(path, "");
  const reads = openSync(path, "r");
  refuseWriters([root]);
  const writes = openSync(path, "a");
  const [kind, message, hint] = await refusal(
    Promise.resolve().then(() => refuseWriters([root])),
  );
  assert.is(kind, "busy");
  assert.match(
    message ?? "",
    RegExp(`^Being written to: ${path} \\(.+, ${process.pid}\\)$`),
  );
  assert.match(hint ?? "", "Stop what writes to it first.");
  refuseWriters([join(root, "other")]);
  closeSync(writes);
  closeSync(reads);
  refuseWriters([root]);
});

test("what the mover of a killed process still writes is waited for", async (fake) => {
  const { instance, engine, root } = fake;
  writeFileSync(join(root, "data.txt"), "");
  const writes = openSync(join(root, "data.txt"), "a");
  const mover = engine.add("fake-mover", { state: "running" });
  setTimeout(() => {
    closeSync(writes);
    mover.name = "ended";
  }, 150);
  await refuseOthers(instance, [root]);
});

test("a locked database keeps data from being moved", ({ root }) => {
  const path = join(root, "chroma.sqlite3");
  const database = new DatabaseSync(path);
  database.exec("CREATE TABLE one (id TEXT)");
  const message = () => {
    try {
      refuseWriters([root, join(root, "gone")]);
    } catch (error) {
      return (error as Failure).message;
    }
    return "";
  };
  assert.not.match(message(), "(locked)");
  database.exec("BEGIN EXCLUSIVE");
  assert.ok(message().includes(`${path} (locked)`), message());
  database.exec("COMMIT");
  database.close();
  assert.is(message(), "");
});

test("workers that run or are paused keep data from being moved", async ({ instance, engine, labels }) => {
  const worker = engine.add("w", { spec: { Labels: labels() } });
  for (const state of ["running", "paused"] as const) {
    worker.state = state;
    assert.is((await refusal(refuseWorkers(instance)))[0], "busy");
  }
  worker.state = "exited";
  await refuseWorkers(instance);
});

test.run();
