import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type EngineFacts,
  engineStopCommand,
  installQuestion,
  planEngine,
} from "../../lib/machine/engine.ts";
import { waitFor } from "../../lib/std/wait.ts";

const test = suite("engine");

const silent: EngineFacts = {
  endpoint: { host: "unix:///var/run/docker.sock", from: "default" },
  answer: { fault: "there is no socket" },
  cli: undefined,
  env: {},
  debian: true,
  root: true,
  sudo: false,
  systemd: false,
  installed: false,
  user: "ann",
  inDockerGroup: false,
};

test("planEngine() always uses a running engine", () => {
  const engine = { version: "20.10.24", api: "1.41", arch: "amd64" };
  const plan = planEngine({ ...silent, answer: engine, debian: false });
  assert.equal(plan, { do: "use", engine });
});

test("planEngine() refuses an engine older than 20.10", () => {
  const engine = { version: "19.03", api: "1.40", arch: "amd64" };
  const plan = planEngine({ ...silent, answer: engine });
  assert.is(plan.do, "refuse");
});

test("planEngine() refuses an engine that requires a newer API of us, or of the CLI", () => {
  const answer = {
    version: "29.0",
    api: "1.60",
    minimumApi: "1.44",
    arch: "amd64",
  };
  const cli = { version: "20.10", api: "1.41", works: false };
  const refusal = (facts: Partial<EngineFacts>) => {
    const plan = planEngine({ ...silent, answer, ...facts });
    return plan.do === "refuse" ? plan.message : plan.do;
  };
  assert.is(refusal({}), "use");
  assert.match(refusal({ cli }), "has API 1.41, and engine 29.0 accepts 1.44");
  const young = { ...answer, minimumApi: "1.55" };
  assert.match(refusal({ answer: young }), "it requires API 1.55");
});

test("planEngine() gives the hint of an engine that is out of reach by ssh", () => {
  const endpoint = { host: "ssh://h", from: "DOCKER_HOST" } as const;
  const answer = { fault: "Permission denied", hint: "ssh h docker version" };
  const plan = planEngine({ ...silent, endpoint, answer });
  assert.is(plan.do === "refuse" && plan.hint, "ssh h docker version");
});

test("planEngine() installs and starts dockerd as root on Debian", () => {
  const plan = { do: "start", install: true, by: "dockerd" };
  assert.equal(planEngine(silent), plan);
});

test("planEngine() adds a user with sudo to group docker, and the question says so", () => {
  const plan = planEngine({ ...silent, root: false, sudo: true });
  assert.equal(plan, {
    do: "start",
    install: true,
    by: "dockerd",
    join: "ann",
  });
  assert.match(installQuestion({ join: "ann" }), "add ann to group docker");
  assert.is(
    installQuestion({}),
    "There is no Docker engine. Install docker.io with apt-get?",
  );
});

test("planEngine() notices that a new member of group docker has to log in again", () => {
  const answer = { fault: "permission denied" };
  const member = { ...silent, answer, root: false, sudo: true };
  assert.is(planEngine(member).do, "refuse");
  assert.equal(planEngine({ ...member, inDockerGroup: true }), {
    do: "regroup",
  });
});

test("planEngine() starts an installed engine, with systemd if it is running", () => {
  const facts = { ...silent, root: false, sudo: true };
  assert.equal(
    planEngine({ ...facts, installed: true, systemd: true }),
    { do: "start", install: false, by: "systemd" },
  );
});

const refusals: [string, Partial<EngineFacts>, RegExp][] = [
  ["on systems other than Debian", { debian: false }, /docs\.docker\.com/],
  ["without root or sudo", { root: false }, /^Install it: sudo apt-get/],
  [
    "without root or sudo if an engine is installed",
    { root: false, installed: true },
    /^Start it: sudo systemctl start docker/,
  ],
  [
    "without permission for the socket",
    { answer: { fault: "permission denied" } },
    /usermod -aG docker/,
  ],
  [
    "if DOCKER_HOST is set",
    { endpoint: { host: "tcp://h:1", from: "DOCKER_HOST" } },
    /unset DOCKER_HOST/,
  ],
  [
    "if a context is selected",
    { endpoint: { host: "unix:///x", from: "context" } },
    /docker context use default/,
  ],
];

for (const [when, facts, hint] of refusals) {
  test(`planEngine() installs nothing ${when}`, () => {
    const plan = planEngine({ ...silent, ...facts });
    assert.is(plan.do, "refuse");
    assert.match(plan.do === "refuse" ? plan.hint : "", hint);
  });
}

test("engineStopCommand() names only a process that is an engine", async () => {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-engine-"));
  const note = join(directory, "pid");
  const stopCommand = (text: string) => {
    writeFileSync(note, text);
    return engineStopCommand(note);
  };
  const dockerd = join(directory, "dockerd");
  execFileSync("cp", ["/bin/sleep", dockerd]);
  const engine = spawn(dockerd, ["30"]);
  try {
    const started = () => stopCommand(`${engine.pid}\n`);
    await waitFor(() => started() !== undefined, {
      for: "the program to be executed",
      timeoutMs: 10_000,
    });
    assert.is(started(), `sudo kill ${engine.pid}`);
    assert.is(stopCommand(`${process.pid}\n`), undefined);
    assert.is(stopCommand("x; rm -r /"), undefined);
    assert.match(stopCommand("systemd\n") ?? "", "systemctl stop");
    rmSync(note);
    assert.is(engineStopCommand(note), undefined);
  } finally {
    engine.kill();
    rmSync(directory, { recursive: true });
  }
});

test.run();
