import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { instanceNames } from "../../lib/instance/labels.ts";
import {
  foreignHome,
  foreignInstance,
  recordedHomes,
  refuseForeignHome,
} from "../../lib/instance/ownership.ts";
import { homePaths } from "../../lib/instance/paths.ts";

const test = suite("ownership");
const names = instanceNames("hal9000");
const mount = (Destination: string, Source: string) => ({
  Type: "bind",
  Destination,
  Source,
});

interface Made {
  name: string;
  role?: string;
  home?: string;
  mounts?: [string, string][];
}

function container({ name, role = "worker", home, mounts = [] }: Made) {
  return {
    Names: [`/${name}`],
    Labels: { "hal9000.role": role, ...(home ? { "hal9000.home": home } : {}) },
    Mounts: mounts.map(([to, from]) => mount(to, from)),
  } as unknown as Docker.ContainerInfo;
}

function volume(Name: string, home?: string, device?: string) {
  return {
    Name,
    Labels: home ? { "hal9000.home": home } : null,
    Options: device ? { device } : null,
  } as unknown as Docker.VolumeInspectInfo;
}

const homesOf = (
  containers: Docker.ContainerInfo[],
  volumes: Docker.VolumeInspectInfo[] = [],
) => recordedHomes(names, containers, volumes).map(({ home }) => home);

test("recordedHomes() reads the label of containers and volumes", () => {
  assert.equal(homesOf([container({ name: "a", home: "/h" })]), ["/h"]);
  assert.equal(homesOf([], [volume("hal9000-plugins", "/h")]), ["/h"]);
});

test("recordedHomes() uses the mounts of objects without a label", () => {
  const parent = container({
    name: "hal9000-parent",
    role: "parent",
    mounts: [["/root/.hal9000", "/h"], ["/config/claude", "/h/config/claude"]],
  });
  const worker = container({
    name: "w",
    mounts: [["/config/claude", "/w/config/claude"]],
  });
  assert.equal(homesOf([worker, parent]), ["/h", "/w"]);
  const device = volume("hal9000-memorybank", undefined, "/m/memorybank");
  assert.equal(homesOf([], [device]), ["/m"]);
  // Objects without a recorded home are ignored.
  const net = container({ name: "hal9000-net", role: "net" });
  assert.equal(homesOf([net], [volume("hal9000-chromadb")]), []);
});

test("recordedHomes() lists parent, volumes and net before workers", () => {
  const found = recordedHomes(names, [
    container({ name: "stray", home: "/stray" }),
    container({ name: "hal9000-parent", role: "parent", home: "/parent" }),
  ], [volume("hal9000-chromadb", "/volume"), volume("other-chromadb", "/x")]);
  assert.equal(found, [
    { home: "/parent", on: "container hal9000-parent", decides: true },
    { home: "/volume", on: "volume hal9000-chromadb", decides: true },
    { home: "/stray", on: "container stray", decides: false },
  ]);
});

const root = mkdtempSync(join(tmpdir(), "hal9000-ownership-"));
test.after(() => rmSync(root, { recursive: true }));

function instanceAt(
  home: string,
  containers: Docker.ContainerInfo[],
  volumes: Docker.VolumeInspectInfo[] = [],
) {
  const docker = {
    listContainers: () => Promise.resolve(containers),
    listVolumes: () => Promise.resolve({ Volumes: volumes }),
  };
  return {
    docker,
    names,
    prefix: "hal9000",
    home: homePaths(home),
    hostHome: homePaths(home),
    self: undefined,
  } as unknown as Instance;
}

test("foreignInstance() is undefined for the own and for a missing instance", async () => {
  const own = container({ name: "x", home: "/nowhere/own" });
  assert.is(
    await foreignInstance(instanceAt("/nowhere/own", [own])),
    undefined,
  );
  assert.is(await foreignInstance(instanceAt("/nowhere/own", [])), undefined);
});

test("foreignInstance() names the other home, and suggests a usable instance", async () => {
  const parent = container({
    name: "hal9000-parent",
    role: "parent",
    home: "/nowhere/other",
  });
  const failure = await foreignInstance(instanceAt("/nowhere/own", [parent]));
  assert.is(failure?.kind, "busy");
  assert.is(
    failure?.message,
    'Instance "hal9000" belongs to /nowhere/other (see container ' +
      "hal9000-parent), not to /nowhere/own",
  );
  const user = userInfo().username;
  assert.match(
    failure?.hint ?? "",
    `export HAL9000_PREFIX=hal9000-${user} HAL9000_HOME=/nowhere/own`,
  );
  assert.not.match(failure?.hint ?? "", "HAL9000_HOME=/nowhere/other");
});

test("foreignInstance() does not suggest a home of another prefix", async () => {
  const home = join(root, "claimed");
  mkdirSync(join(home, "run"), { recursive: true });
  writeFileSync(join(home, "run", "instance"), "hal9000\n");
  const other = container({ name: "hal9000-parent", home: root });
  const failure = await foreignInstance(instanceAt(home, [other]));
  const user = userInfo().username;
  assert.match(failure?.hint ?? "", `HAL9000_HOME=${home}-${user}`);
  // The other home belongs to this user.
  assert.match(failure?.hint ?? "", `export HAL9000_HOME=${root}`);
});

test("foreignInstance() accepts a moved home with a link", async () => {
  const moved = join(root, "moved");
  mkdirSync(join(moved, "run"), { recursive: true });
  writeFileSync(join(moved, "run", "instance"), "hal9000\n");
  const former = join(root, "former");
  const parent = container({ name: "hal9000-parent", home: former });
  const failure = await foreignInstance(instanceAt(moved, [parent]));
  assert.match(failure?.hint ?? "", `ln -s ${moved} ${former}`);
  symlinkSync(moved, former);
  assert.is(await foreignInstance(instanceAt(moved, [parent])), undefined);
});

test("foreignInstance() ignores a foreign worker, but with all no foreign volume", async () => {
  const parent = container({
    name: "hal9000-parent",
    role: "parent",
    home: "/nowhere/own",
  });
  const stray = container({ name: "stray", home: "/nowhere/other" });
  const mine = instanceAt("/nowhere/own", [stray, parent]);
  assert.is(await foreignInstance(mine), undefined);
  assert.is(await foreignInstance(mine, { all: true }), undefined);
  const mixed = instanceAt("/nowhere/own", [parent], [
    volume("hal9000-memorybank", undefined, "/nowhere/other/memorybank"),
  ]);
  assert.is(await foreignInstance(mixed), undefined);
  const failure = await foreignInstance(mixed, { all: true });
  assert.match(failure?.message ?? "", "see volume hal9000-memorybank");
});

test("foreignHome() refuses the home of another instance", () => {
  const home = homePaths(join(root, "of-another"));
  mkdirSync(home.run, { recursive: true });
  assert.is(foreignHome({ home, prefix: "hal9000" }), undefined);
  writeFileSync(home.instance, "other\n");
  const failure = foreignHome({ home, prefix: "hal9000" });
  assert.match(failure?.message ?? "", 'belongs to instance "other"');
  assert.match(failure?.hint ?? "", "HAL9000_PREFIX=other");
  assert.is(foreignHome({ home, prefix: "other" }), undefined);
});

test("the user's home, a system directory or another user's home cannot be HAL9000_HOME", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-ownership-"));
  const links = [homedir(), "/usr/local"].map((target, at) => {
    symlinkSync(target, join(root, `${at}`));
    return join(root, `${at}`);
  });
  for (const path of [homedir(), "/", "/tmp", "/usr/local", ...links]) {
    const failure = foreignHome({ home: homePaths(path), prefix: "x" });
    assert.equal([failure?.kind, failure?.message], [
      "unsafe",
      `${path} cannot be HAL9000_HOME`,
    ]);
    assert.match(failure?.hint ?? "", "a separate directory, such as");
  }
  const home = homePaths("/nonexistent/home");
  assert.is(foreignHome({ home, prefix: "x" }), undefined);
  rmSync(root, { recursive: true });
});

test("a home with another prefix is refused with both ways out", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-ownership-"));
  const home = homePaths(root);
  mkdirSync(home.run);
  writeFileSync(home.instance, "\n");
  assert.is(foreignHome({ home, prefix: "mine" }), undefined);
  writeFileSync(home.instance, "mine\n");
  assert.is(foreignHome({ home, prefix: "mine" }), undefined);
  const failure = foreignHome({ home, prefix: "other" });
  assert.throws(() => refuseForeignHome({ home, prefix: "other" }), /belongs/);
  rmSync(root, { recursive: true });
  assert.equal([failure?.kind, failure?.message], [
    "busy",
    `${root} belongs to instance "mine"`,
  ]);
  assert.is(
    failure?.hint,
    "Use that instance: export HAL9000_PREFIX=mine\n" +
      'Or give "other" its own home: export HAL9000_HOME=DIR',
  );
});

test.run();
