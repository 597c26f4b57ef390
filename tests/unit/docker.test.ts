import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { PassThrough } from "node:stream";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { runHere } from "../../lib/docker/docker-cli.ts";
import { createContainer, type Docker } from "../../lib/docker/docker.ts";
import {
  engineFailure,
  unreachableHint,
} from "../../lib/docker/docker-errors.ts";
import { endpointOf, socketOf } from "../../lib/docker/endpoint.ts";
import { execAtTerminal } from "../../lib/docker/terminal.ts";
import { Failure, messageOf } from "../../lib/std/errors.ts";
import { processMark } from "../../lib/std/process-mark.ts";

const test = suite<{ config: string }>("docker");

test.before.each((context) => {
  context.config = mkdtempSync(join(tmpdir(), "hal9000-docker-"));
});

test.after.each(({ config }) => rmSync(config, { recursive: true }));

function makeContext(config: string, name: string, host: string): void {
  const digest = createHash("sha256").update(name).digest("hex");
  const directory = join(config, "contexts", "meta", digest);
  mkdirSync(directory, { recursive: true });
  const meta = { Name: name, Endpoints: { docker: { Host: host } } };
  writeFileSync(join(directory, "meta.json"), JSON.stringify(meta));
}

test("endpointOf() is the default socket without configuration", ({ config }) => {
  assert.equal(endpointOf({ DOCKER_CONFIG: config }), {
    host: "unix:///var/run/docker.sock",
    from: "default",
  });
});

test("endpointOf() prefers DOCKER_HOST to the context", ({ config }) => {
  makeContext(config, "there", "unix:///there.sock");
  const env = { DOCKER_CONFIG: config, DOCKER_CONTEXT: "there" };
  assert.equal(endpointOf({ ...env, DOCKER_HOST: "unix:///here.sock" }), {
    host: "unix:///here.sock",
    from: "DOCKER_HOST",
  });
  assert.equal(endpointOf(env), {
    host: "unix:///there.sock",
    from: "context",
  });
});

test("endpointOf() follows the current context of config.json", ({ config }) => {
  makeContext(config, "colima", "unix:///colima.sock");
  writeFileSync(join(config, "config.json"), '{"currentContext":"colima"}');
  assert.is(endpointOf({ DOCKER_CONFIG: config }).host, "unix:///colima.sock");
});

test("endpointOf() reports an unreadable context by name", ({ config }) => {
  const env = { DOCKER_CONFIG: config, DOCKER_CONTEXT: "gone" };
  assert.throws(() => endpointOf(env), /Cannot read docker context "gone"/);
});

test("unreachableHint() depends on how the endpoint is configured", ({ config }) => {
  const hint = (env: object, fault = "connection refused") =>
    unreachableHint(fault, { DOCKER_CONFIG: config, ...env });
  assert.match(hint({}), /claudy up/);
  assert.match(hint({ DOCKER_HOST: "unix:///x" }), /unset DOCKER_HOST/);
  makeContext(config, "there", "unix:///there.sock");
  assert.match(hint({ DOCKER_CONTEXT: "there" }), /docker context use default/);
  assert.match(hint({ DOCKER_CONTEXT: "gone" }), /Cannot read docker context/);
  assert.match(hint({}, "permission denied"), /docker group/);
});

test("socketOf() is the default socket for a remote engine", () => {
  const at = (host: string) => socketOf({ host, from: "DOCKER_HOST" });
  assert.is(at("unix:///run/user/1/docker.sock"), "/run/user/1/docker.sock");
  assert.is(at("tcp://host:2376"), "/var/run/docker.sock");
  assert.is(at("ssh://host"), "/var/run/docker.sock");
  assert.is(at("ssh://host/run/it's.sock"), "/run/it's.sock");
});

test("engineFailure() derives the exit code from status and errno", () => {
  const kind = (error: object) => engineFailure(error, "Cannot x").exitCode;
  assert.is(kind({ code: "ECONNREFUSED", syscall: "connect" }), 3);
  assert.is(kind({ code: "EACCES", syscall: "connect" }), 3);
  assert.is(kind({ code: "ENOTFOUND", syscall: "getaddrinfo" }), 3);
  assert.is(kind({ code: "ENOENT", syscall: "open" }), 1);
  assert.is(kind({ statusCode: 404 }), 4);
  assert.is(kind({ statusCode: 409 }), 5);
  assert.is(kind({ statusCode: 500 }), 1);
});

test("engineFailure() has the engine's reason and the error as cause", () => {
  const error = { statusCode: 500, json: { message: "no space" } };
  const failure = engineFailure(error, 'Cannot start worker "x"');
  assert.is(failure.message, 'Cannot start worker "x": no space');
  assert.is(failure.cause, error);
});

test("engineFailure() returns a Failure unchanged", () => {
  const failure = new Failure("unsafe", "no");
  assert.is(engineFailure(failure, "Cannot x"), failure);
});

test("a signal after the command has ended is no error", async () => {
  const isTerminal = process.stdout.isTTY;
  process.stdout.isTTY = true; // so that the output is filtered
  try {
    // Its output stays open after its end.
    const running = runHere(["sh", "-c", "sleep 0.5 & exit 0"], {
      filtered: true,
    });
    await sleep(250);
    process.emit("SIGTERM", "SIGTERM");
    assert.is(await running, 128 + 15);
  } finally {
    process.stdout.isTTY = isTerminal;
  }
});

test("an interrupted command that does not report it exits with 130", async () => {
  for (const [endsOnInterrupt, code] of [[true, 130], [false, 0]] as const) {
    const running = runHere(["sleep", "0.5"], { endsOnInterrupt });
    await sleep(100);
    process.emit("SIGINT", "SIGINT");
    assert.is(await running, code);
  }
});

test("a command that a signal ended exits with 128 and its number", async () => {
  assert.is(await runHere(["sh", "-c", "kill -INT $$"]), 130);
});

test("a worker that blocks the end of a left terminal does not block the next one", async () => {
  const exec = {
    inspect: () =>
      Promise.resolve({
        Running: true,
        ProcessConfig: { tty: true, arguments: ["-c", "", leftMark()] },
      }),
  };
  const ending = {
    // A pipe in place of the file with the pid.
    start: () => Promise.resolve(new PassThrough()),
  };
  let terminals = 0;
  const container = {
    inspect: () => Promise.resolve({ ExecIDs: ["left"] }),
    exec: ({ Tty }: { Tty?: boolean }) => {
      if (!Tty) return Promise.resolve(ending);
      terminals++;
      return Promise.reject(new Error("enough"));
    },
  };
  const docker = {
    getContainer: () => container,
    getExec: () => exec,
  } as unknown as Docker;
  const began = Date.now();
  const attached = execAtTerminal(docker, "x", { command: ["sh"], env: {} });
  const error = await attached.catch((error) => error);
  assert.match(messageOf(error), "enough");
  assert.is(terminals, 1);
  assert.ok(Date.now() - began < 5000);
});

/** The mark of a process of this pid namespace that has ended. */
function leftMark(): string {
  const [namespace] = processMark().split(".");
  return `${namespace}.${2 ** 30}.1-x`;
}

test("createContainer() has a hint for files that an engine elsewhere may lack", async () => {
  const refusal = { message: "bind source path does not exist: /home/x" };
  const failureOf = async (KernelVersion: string, statusCode: number) => {
    const docker = {
      info: () => Promise.resolve({ NCPU: 1, MemTotal: 1, KernelVersion }),
      createContainer: () =>
        Promise.reject(
          Object.assign(new Error("refused"), { statusCode, json: refusal }),
        ),
    } as unknown as Docker;
    const error = await createContainer(docker, "x", {}).catch((error) =>
      error
    );
    return engineFailure(error, "Cannot start x");
  };
  const { message, hint = "" } = await failureOf("1.0-of-a-vm", 400);
  assert.is(message, `Cannot start x: ${refusal.message}`);
  assert.match(
    hint,
    /^The engine runs on another machine: share the directory/,
  );
  assert.is((await failureOf(release(), 400)).hint, undefined);
  assert.is((await failureOf("1.0-of-a-vm", 500)).hint, undefined);
});

test.run();
