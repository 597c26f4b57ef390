// What an uninstall removes, and what it keeps.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  type EngineContents,
  planUninstall,
} from "../../lib/doctor/uninstall-plan.ts";
import { bind } from "../../lib/instance/container-spec.ts";
import { instanceNames, label } from "../../lib/instance/labels.ts";
import { type HomePaths, homePaths } from "../../lib/instance/paths.ts";
import { mountPointsBelow, removeHome } from "../../lib/instance/storage.ts";
import { ensureSample } from "../../lib/machine/sample.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

const test = suite<Served>("uninstall");

test.before.each(async (context) =>
  void Object.assign(context, await serveEngine())
);
test.after.each(({ close }) => close());

const of = (prefix: string, more = {}) => ({
  [label.instance]: prefix,
  ...more,
});

const container = (
  name: string,
  Labels: Record<string, string>,
  Image = "",
) => ({
  Id: name,
  Names: [`/${name}`],
  Image,
  ImageID: `sha256:${Image}`,
  State: "running",
  Labels,
});

const image = (
  Id: string,
  names: string[] | null,
  Labels: Record<string, string> = { [label.inputs]: "x" },
) => ({ Id, RepoTags: names as string[], Labels });

const volume = (Name: string, prefix: string) => ({ Name, Labels: of(prefix) });

const stage = { [label.stage]: "true" };

/** An engine with one instance and things of nobody. */
const alone: EngineContents = {
  containers: [
    container("my-worker", of("hal9000")),
    container("hal9000-net", of("hal9000")),
    container("hal9000-parent", { [label.role]: "parent" }),
    container("hal9000-database", {}),
  ],
  volumes: [
    volume("hal9000-chromadb", "hal9000"),
    { Name: "hal9000-own", Labels: {} },
  ],
  images: [
    image("a", ["hal9000:parent", "hal9000:base"]),
    image("b", ["hal9000-profile:rust"]),
    // Of a build that was interrupted.
    image("k", ["hal9000-devcontainer:1-2"], {}),
    // Of an upgrade that was interrupted.
    image("i", ["hal9000-next:parent"]),
    image("j", ["hal9000-former:parent"]),
    image("c", null),
    image("d", ["<none>:<none>"], stage),
    image("e", null, {}),
    image("f", ["hal9000:mine"], {}),
    image("g", ["hal9000-base:trixie", "hal9000-debian:trixie"], {}),
    image("h", ["debian:trixie-slim"], {}),
  ],
};

const plan = (
  contents: Partial<EngineContents> = {},
  repository = "hal9000",
) =>
  planUninstall({
    prefix: "hal9000",
    names: instanceNames("hal9000"),
    settings: { HAL9000_IMAGE_REPO: repository } as Served["instance"][
      "settings"
    ],
    hostHome: homePaths("/home/me/.hal9000"),
    self: undefined,
  }, { ...alone, ...contents });

test("planUninstall() has what the instance created, and what only it used", () => {
  assert.equal(plan(), {
    containers: ["hal9000-net", "hal9000-parent", "my-worker"],
    images: [
      "hal9000-base:trixie",
      "hal9000-debian:trixie",
      "hal9000-devcontainer:1-2",
      "hal9000-former:parent",
      "hal9000-next:parent",
      "hal9000-profile:rust",
      "hal9000:base",
      "hal9000:parent",
    ],
    untagged: ["c", "d"],
    volumes: ["hal9000-chromadb"],
    others: [],
  });
});

const traces: [string, Partial<EngineContents>][] = [
  ["container", {
    containers: [...alone.containers, container("x", of("other"))],
  }],
  ["volume", { volumes: [...alone.volumes, volume("x", "other")] }],
  ["image", { images: [...alone.images, image("x", ["other:parent"])] }],
];

for (const [what, contents] of traces) {
  test(`planUninstall() keeps what instances share if there is another one's ${what}`, () => {
    const { images, untagged, others } = plan(contents);
    assert.equal(images, [
      "hal9000-devcontainer:1-2",
      "hal9000-former:parent",
      "hal9000-next:parent",
      "hal9000-profile:rust",
      "hal9000:base",
      "hal9000:parent",
    ]);
    assert.equal([untagged, others], [[], ["other"]]);
  });
}

test("planUninstall() keeps images of a repository that another instance's containers use", () => {
  const containers = [container("x", of("other"), "shared:parent")];
  const images = [
    image("a", ["shared:parent"]),
    image("b", ["shared:worker"]),
    image("c", ["hal9000-profile:rust"]),
  ];
  assert.equal(plan({ containers, images }, "shared").images, [
    "hal9000-profile:rust",
  ]);
  // Taken over: the same images, with names of its own.
  const own = [{ ...container("x", of("other"), "own:parent"), ImageID: "a" }];
  assert.equal(plan({ containers: own, images }, "shared").images, [
    "hal9000-profile:rust",
    "shared:parent",
    "shared:worker",
  ]);
});

test("planUninstall() keeps what only has the same prefix: its home is another", () => {
  const theirs = of("hal9000", { [label.home]: "/home/you/.hal9000" });
  const ours = of("hal9000", { [label.home]: "/home/me/.hal9000" });
  const { containers, volumes } = plan({
    containers: [container("a", theirs), container("b", ours)],
    volumes: [
      { Name: "c", Labels: theirs },
      { Name: "d", Labels: ours },
    ],
  });
  assert.equal([containers, volumes], [["b"], ["d"]]);
});

test("uninstall removes containers and images, and keeps data", async ({ run, engine, instance }) => {
  // The name as Podman lists it.
  engine.images.set(
    "repo:worker",
    image("w", ["docker.io/library/repo:worker"]),
  );
  const cache = join(instance.home.home, "..", "user", ".cache", "hal9000");
  mkdirSync(cache, { recursive: true });
  writeFileSync(instance.home.conf, "");
  const ran = await run(claudy, ["uninstall", "--yes"]);
  assert.equal([ran.code, ran.stdout], [
    0,
    `Removed 2 containers, 1 image, ${cache}\n`,
  ]);
  assert.equal(engine.containers, []);
  assert.ok(engine.asked.includes("rmi repo:worker"));
  assert.not(existsSync(cache));
  assert.ok(existsSync(instance.home.conf));
  assert.match(ran.stderr, `Data is kept in ${instance.home.home}`);
});

const notCaches: [
  string,
  (paths: { cache: string; root: string; home: string }) => void,
][] = [
  ["has other files", ({ cache }) => {
    mkdirSync(cache, { recursive: true });
    writeFileSync(join(cache, "gen"), "");
    writeFileSync(join(cache, "notes.txt"), "");
  }],
  ["is a link to HAL9000_HOME", ({ cache, home }) => {
    mkdirSync(dirname(cache), { recursive: true });
    symlinkSync(home, cache);
  }],
  ["contains HAL9000_HOME", ({ cache, home }) => {
    mkdirSync(cache, { recursive: true });
    renameSync(home, join(cache, "gen"));
    symlinkSync(join(cache, "gen"), home);
  }],
];

for (const [what, create] of notCaches) {
  test(`uninstall keeps a directory with the name of Deno's cache that ${what}`, async ({ run, root, instance: { home } }) => {
    const cache = join(root, "user", ".cache", "hal9000");
    create({ cache, root, home: home.home });
    const ran = await run(claudy, ["uninstall", "--yes"]);
    assert.equal([ran.code, existsSync(cache)], [0, true]);
    assert.ok(existsSync(home.instance));
  });
}

test("uninstall keeps HAL9000_HOME without --data, also as ~/.cache/hal9000", async ({ run, engine, root, instance: { home } }) => {
  engine.containers.length = 0; // they have the other home as a label
  const cache = join(root, "user", ".cache");
  const moved = homePaths(join(cache, "hal9000"));
  mkdirSync(cache, { recursive: true });
  renameSync(home.home, moved.home);
  const ran = await run(claudy, ["uninstall", "--yes"], {
    env: { HAL9000_HOME: moved.home },
  });
  assert.equal([ran.code, existsSync(moved.instance)], [0, true]);
});

test("uninstall --data refuses a home with unrelated files, before it removes anything", async ({ run, engine, instance: { home } }) => {
  const notes = join(home.home, "notes");
  writeFileSync(notes, "");
  const refused = await run(claudy, ["uninstall", "--yes", "--data"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "HAL-9000 did not create notes in it");
  assert.is(engine.containers.length, 2);
  rmSync(notes);
  assert.is((await run(claudy, ["uninstall", "--yes", "--data"])).code, 0);
});

test("uninstall --data deletes a home that is a link, and nothing if it is in use", async ({ run, engine, root, instance: { home, names, prefix } }) => {
  const target = join(root, "disk");
  renameSync(home.home, target);
  symlinkSync(target, home.home);
  engine.volumes.set(names.volumes.chromadb, {
    Name: names.volumes.chromadb,
    Labels: of(prefix),
  });
  const Mounts = [bind(join(target, "memorybank"), "/data")];
  const user = engine.add("backup", {
    spec: { Labels: {}, HostConfig: { Mounts } },
  });
  const refused = await run(claudy, ["uninstall", "--yes", "--data"]);
  assert.is(refused.code, 5);
  assert.match(refused.stderr, "in use by backup");
  assert.ok(existsSync(home.backups));
  engine.containers.splice(engine.containers.indexOf(user), 1);
  assert.is((await run(claudy, ["uninstall", "--yes", "--data"])).code, 0);
  assert.equal([existsSync(target), existsSync(home.home)], [false, false]);
});

test("uninstall --data deletes volumes and HAL9000_HOME too, twice without harm", async ({ run, engine, instance }) => {
  const { home, names, prefix } = instance;
  engine.volumes.set(names.volumes.chromadb, {
    Name: names.volumes.chromadb,
    Labels: of(prefix),
  });
  writeFileSync(join(home.backups, "kept"), "");
  assert.is((await run(claudy, ["uninstall", "--yes", "--data"])).code, 0);
  assert.not(existsSync(home.home));
  assert.is(engine.volumes.size, 0);
  const again = await run(claudy, ["uninstall", "--yes", "--data"]);
  assert.equal([again.code, again.stdout], [0, "Nothing to remove\n"]);
});

test("uninstall refuses to stop workers or to go on without being told to", async ({ run, engine, labels, instance }) => {
  const before = engine.containers.length;
  engine.add("busy", { spec: { Labels: labels() } });
  const refused = await run(claudy, ["uninstall", "--yes", "--data"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, /Workers are running: busy\n.*--force/);
  const asked = await run(claudy, ["uninstall", "--force"]);
  assert.is(asked.code, 6);
  assert.match(asked.stderr, "Remove all of this?");
  assert.is(engine.containers.length, before + 1);
  const forced = await run(claudy, ["uninstall", "--force", "--yes"]);
  assert.is(forced.code, 0);
  assert.equal(engine.containers, []);
  assert.ok(existsSync(instance.home.home));
});

test("uninstall --dry-run and a refused --data change nothing", async ({ run, engine, instance }) => {
  const shown = await run(claudy, [
    "uninstall",
    "--dry-run",
    "--data",
    "--json",
  ]);
  assert.equal(JSON.parse(shown.stdout), {
    containers: [instance.names.net, instance.names.parent],
    images: [],
    untagged: [],
    volumes: [],
    files: [instance.home.home],
  });
  rmSync(instance.home.instance);
  const refused = await run(claudy, ["uninstall", "--yes", "--data"]);
  assert.is(refused.code, 6);
  assert.match(refused.stderr, "is not the home of an instance");
  assert.equal(engine.asked, []);
});

test("uninstall reports an image that is in use, and removes the others", async ({ run, engine }) => {
  engine.images.set("repo:worker", image("w", ["repo:worker"]));
  engine.images.set("repo:parent", image("p", ["repo:parent"]));
  engine.refuses.set("rmi repo:parent", 409);
  const ran = await run(claudy, ["uninstall", "--yes"]);
  assert.is(ran.code, 8);
  assert.match(ran.stderr, "Cannot remove image repo:parent");
  assert.ok(engine.asked.includes("rmi repo:worker"));
});

test("the sample's README.md is neither followed nor read if a worker has replaced it", async ({ run, root }) => {
  const user = join(root, "user");
  const readme = join(ensureSample(user), "README.md");
  rmSync(readme);
  symlinkSync(join(user, ".bash_aliases"), readme);
  ensureSample(user);
  assert.not(existsSync(join(user, ".bash_aliases")));
  rmSync(readme);
  execFileSync("mkfifo", [readme]);
  const kept = await run(claudy, ["uninstall", "--yes"]);
  assert.match(kept.stderr, "The sample project is kept");
});

test("uninstall removes the sample project only if it is unused", async ({ run, root }) => {
  const sample = ensureSample(join(root, "user"));
  writeFileSync(join(sample, "work"), "");
  const kept = await run(claudy, ["uninstall", "--yes"]);
  assert.match(kept.stderr, `you have used it: ${sample}`);
  rmSync(join(sample, "work"));
  await run(claudy, ["uninstall", "--yes"]);
  assert.not(existsSync(sample));
});

const leftovers: [string, (home: HomePaths) => void][] = [
  ["its volumes and most directories", ({ home, run }) => {
    for (const name of readdirSync(home)) {
      if (join(home, name) !== run) {
        rmSync(join(home, name), { recursive: true });
      }
    }
  }],
  ["all but an empty directory", ({ home, run }) => {
    rmSync(home, { recursive: true });
    mkdirSync(run, { recursive: true });
  }],
  ["all but the directory", ({ home }) => {
    rmSync(home, { recursive: true });
    mkdirSync(home);
  }],
];

for (const [what, remove] of leftovers) {
  test(`uninstall --data finishes one that was killed when it had removed ${what}`, async ({ run, instance: { home } }) => {
    remove(home);
    const ran = await run(claudy, ["uninstall", "--yes", "--data"]);
    assert.equal([ran.code, existsSync(home.home)], [0, false]);
  });
}

test("mountPointsBelow() finds mounts below a directory that is a link", ({ root }) => {
  symlinkSync("/dev", join(root, "link"));
  const found = mountPointsBelow(join(root, "link"));
  assert.ok(found.some((path) => path.startsWith("/dev/")));
  assert.equal(found, mountPointsBelow("/dev"));
});

test("removeHome() removes a home that is a link, and where it points to", async ({ instance: { home }, root }) => {
  const target = join(root, "disk");
  renameSync(home.home, target);
  symlinkSync(target, home.home);
  await removeHome(home);
  assert.equal(readdirSync(root), ["engine.sock"]);
});

test.run();
