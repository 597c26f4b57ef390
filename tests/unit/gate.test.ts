import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type GateCheck,
  gated,
  gatePassed,
  noServices,
} from "../../lib/worker/gate.ts";
import { inodeOf } from "../../lib/std/hostpath.ts";

const test = suite("gate");

/** Two mounts that exist on every Linux. */
const home = { target: "/", inode: inodeOf("/"), source: "/home" };
const project = { target: "/proc", inode: inodeOf("/proc"), source: "/app" };

function run(
  homeMount = home,
  check: GateCheck = project,
  announce = false,
  ports: number[] = [],
) {
  const { Entrypoint: [file = "", ...args], Cmd } = gated(
    homeMount,
    [check],
    ["printf", "%s|", "a b", "c'd"],
    { ports, announce },
  );
  const fewTries = args.map((arg) => arg.replace(/-lt \d+/, "-lt 3"));
  const { status, stdout, stderr } = spawnSync(file, [...fewTries, ...Cmd]);
  return { status, stdout: `${stdout}`, stderr: `${stderr}` };
}

test("gated() runs the command if the mounts are as checked", () => {
  assert.equal(run(), { status: 0, stdout: "a b|c'd|", stderr: "" });
  assert.is(run(home, project, true).stdout, `${gatePassed}\na b|c'd|`);
});

test("gated() waits for the services, and ends without them", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  assert.is(run(home, project, true, [port]).status, 0);
  server.close();
  await once(server, "close");
  assert.equal(run(home, project, true, [port]), {
    status: 1,
    stdout: "",
    stderr: `error: ${noServices}\n`,
  });
});

test("gated() refuses a mount with another inode", () => {
  const { dev } = statSync("/proc");
  const { status, stdout, stderr } = run(home, {
    ...project,
    inode: `${dev}:999999`,
    source: "/it's $HOME",
  });
  assert.is(status, 6);
  assert.is(stdout, "");
  assert.match(stderr, "/it's $HOME was replaced while it was being mounted");
});

test("gated() refuses a target that is not a mount", () => {
  for (const target of ["/usr", "/pro", "/proc/", "/a b\n\\c"]) {
    const { status, stderr } = run(home, { ...project, target });
    assert.is(status, 6, target);
    assert.match(stderr, "/app was not mounted at");
  }
});

test("gated() refuses a part of a mount that is elsewhere", () => {
  const part = {
    target: "/proc",
    source: "/app/.git/config",
    within: { target: "/", path: "/.git/config" },
  };
  const { status, stderr } = run(home, part);
  assert.is(status, 6);
  assert.match(stderr, "/app/.git/config was replaced");
  assert.match(run(home, { ...part, target: "/usr" }).stderr, "not mounted");
  assert.is(
    run(home, { ...part, within: { target: "/proc", path: "" } }).status,
    0,
  );
});

test("gated() does not compare inodes of different kernels", () => {
  const other = { ...home, inode: "1:1" };
  assert.is(run(other, { ...project, inode: "1:2" }).status, 0);
});

test.run();
