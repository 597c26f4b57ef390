import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import {
  limitEvents,
  limitText,
  pidsHint,
  tellOfPids,
} from "../../lib/worker/limit-events.ts";
import { stateText } from "../../lib/commands/sessions.ts";
import { examineLimits, judgeLimits } from "../../lib/doctor/limits.ts";
import type { SessionState } from "../../lib/session/list.ts";
import { pidsLimit, workerLimits } from "../../lib/worker/limits.ts";
import type { Docker } from "../../lib/docker/docker.ts";
import { fakeInstance } from "../helper/fake-engine.ts";

const test = suite<{ root: string }>("limits");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-limits-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

const id = "c".repeat(64);
const host = { self: undefined };

function write(root: string, files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
}

const labelled = (pids: string) =>
  ({
    Config: { Labels: { [label.pids]: pids } },
  }) as unknown as Docker.ImageInspectInfo;

test("pidsLimit() uses the setting, else the image's label, else 100", () => {
  const auto = { WORKER_PIDS_LIMIT: undefined };
  assert.is(pidsLimit(auto), 100);
  assert.is(pidsLimit(auto, labelled("2048")), 2048);
  assert.is(pidsLimit({ WORKER_PIDS_LIMIT: 50 }, labelled("2048")), 50);
  for (const bad of ["0", "-1", "many", "99999999"]) {
    assert.is(pidsLimit(auto, labelled(bad)), 100, bad);
  }
});

test("workerLimits() requests at most the engine's memory", async () => {
  const { instance, engine, log, told, end } = fakeInstance();
  engine.about.MemTotal = 2 ** 30;
  const settings = { ...instance.settings, WORKER_MEMORY: 2 ** 50 };
  assert.equal(
    await workerLimits({ ...instance, settings }, undefined, log),
    { memoryBytes: 2 ** 30, cpus: 1, pids: 100 },
  );
  assert.is(told.length, 1);
  end();
});

const versions: [string, Record<string, string>][] = [
  ["version 1, cgroupfs", {
    [`pids/docker/${id}/pids.events`]: "max 3\n",
    [`pids/docker/${id}/pids.max`]: "100\n",
    [`memory/docker/${id}/memory.failcnt`]: "5\n",
    [`memory/docker/${id}/memory.oom_control`]:
      "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  }],
  ["version 1, systemd", {
    [`pids/system.slice/docker-${id}.scope/pids.events`]: "max 3\n",
    [`pids/system.slice/docker-${id}.scope/pids.max`]: "100\n",
    [`memory/system.slice/docker-${id}.scope/memory.failcnt`]: "5\n",
    [`memory/system.slice/docker-${id}.scope/memory.oom_control`]:
      "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
  }],
  ...[
    `docker/${id}`,
    `system.slice/docker-${id}.scope`,
    `libpod_parent/libpod-${id}`,
    `machine.slice/libpod-${id}.scope`,
  ].map((
    directory,
  ): [string, Record<string, string>] => [
    `version 2, ${directory.split("/")[0]}`,
    {
      [`${directory}/pids.events`]: "max 3\n",
      [`${directory}/pids.max`]: "100\n",
      [`${directory}/memory.events`]:
        "low 0\nhigh 1\nmax 5\noom 9\noom_kill 2\noom_group_kill 0\n",
    },
  ]),
];

for (const [name, files] of versions) {
  test(`limitEvents() reads cgroup files of ${name}`, async ({ root }) => {
    write(root, files);
    assert.equal(await limitEvents(host, id, root), {
      pidsLimit: 100,
      pidsRefused: 3,
      memoryReached: 5,
      oomKills: 2,
    });
    assert.is(await limitEvents(host, "d".repeat(64), root), null);
  });
}

test("limitEvents() reads no more than the beginning of a file", async ({ root }) => {
  const filler = "x".repeat(5000);
  write(root, {
    [`docker/${id}/pids.events`]: `${filler}\nmax 3\n`,
    [`docker/${id}/pids.max`]: "max\n",
  });
  assert.equal(await limitEvents(host, id, root), {
    pidsLimit: null,
    pidsRefused: 0,
    memoryReached: 0,
    oomKills: 0,
  });
});

test("a reached limit is reported with the option that raises it", () => {
  const events = {
    pidsLimit: 100,
    pidsRefused: 3,
    memoryReached: 9,
    oomKills: 0,
  };
  assert.is(limitText(events), "process limit 100 reached");
  assert.is(limitText({ ...events, pidsRefused: 0 }), "");
  assert.is(
    limitText({ ...events, oomKills: 2 }),
    "process limit 100 reached, 2 OOM-killed",
  );
  assert.is(limitText(null), "");
  assert.match(
    pidsHint("w", events),
    /^docker update --pids-limit 2048 w; .*--pids-limit.*WORKER_PIDS_LIMIT=2048/,
  );
  assert.match(pidsHint("w", { ...events, pidsLimit: 2048 }), /4096/);
  const told: string[] = [];
  const log = (line: string) => void told.push(line);
  tellOfPids({ name: "w", events: null }, log);
  tellOfPids({ name: "w", events: { ...events, pidsRefused: 0 } }, log);
  assert.equal(told, []);
  tellOfPids({ name: "w", events, runs: false }, log);
  assert.match(told[0] ?? "", /"w" reached its limit of 100 processes/);
  assert.match(told[1] ?? "", /^Raise it: hal9000-spawn-worker --pids-limit N/);
});

test("doctor names the workers that reached a limit, and how to raise it", () => {
  const none = {
    pidsLimit: 100,
    pidsRefused: 0,
    memoryReached: 9,
    oomKills: 0,
  };
  const worker = (name: string, change: object = {}) => ({
    name,
    events: { ...none, ...change },
  });
  assert.is(judgeLimits([]).says, "no running worker has reached one");
  assert.is(judgeLimits([worker("a")]).state, "ok");
  const unknown = { name: "x", events: null };
  assert.is(judgeLimits([unknown]).says, "not visible from here");
  const some = [
    unknown,
    worker("a"),
    worker("b", { pidsRefused: 1 }),
    worker("c", { oomKills: 2 }),
  ];
  const found = judgeLimits(some);
  assert.is(found.state, "warn");
  assert.is(found.says, '"b": process limit 100 reached; "c": 2 OOM-killed');
  assert.match(found.mend ?? "", /^docker update --pids-limit 2048 b;/);
  const full = judgeLimits([worker("c", { oomKills: 2 })]);
  assert.match(full.mend ?? "", /WORKER_MEMORY .*claudy stop c$/);
});

test("claudy sessions shows that a running worker has reached a limit", () => {
  const session = {
    state: "working",
    waitingFor: null,
    oomKilledAt: null,
    memoryBytes: null,
    limitEvents: {
      pidsLimit: 100,
      pidsRefused: 1,
      memoryReached: 0,
      oomKills: 0,
    },
  } as unknown as SessionState;
  assert.is(stateText(session), "working: process limit 100 reached");
  assert.is(
    stateText({ ...session, state: "waiting", waitingFor: "permission" }),
    "waiting: permission; process limit 100 reached",
  );
  assert.is(stateText({ ...session, limitEvents: null }), "working");
});

test("doctor finds no limits to reach on an engine without them", async () => {
  const { instance, engine, end } = fakeInstance();
  Object.assign(engine.about, { CgroupDriver: "none" });
  assert.is((await examineLimits(instance)).says, "the engine has none");
  end();
});

test.run();
