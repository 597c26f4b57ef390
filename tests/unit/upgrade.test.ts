// claudy upgrade, on a fake engine.

import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  forgetFormer,
  parentToUpgrade,
  replaceParent,
  useNewImages,
} from "../../lib/daemon/upgrade.ts";
import { examineParent } from "../../lib/doctor/daemon.ts";
import { label, versionLabel } from "../../lib/instance/labels.ts";
import {
  parentAnswers,
  serveParent,
} from "../../lib/instance/parent-socket.ts";
import {
  type ParentState,
  writeParentState,
} from "../../lib/instance/parent-state.ts";
import { Failure } from "../../lib/std/errors.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { changesBetween, compareVersions } from "../../lib/std/version.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  stop: AbortController;
  served: Promise<void>;
}

const test = suite<Context>("upgrade");

const state: ParentState = {
  version: 1,
  container: "",
  build: "digest",
  ready: true,
  readyMs: 5,
  chromadbFault: null,
  shared: { open: [8000], taken: [] },
  phases: [],
  children: [],
};

/** Parents of these images do not start. */
const broken = "sha256:broken";

test.before.each(async (context) => {
  Object.assign(context, fakeInstance(), { stop: new AbortController() });
  const { engine, instance } = context;
  engine.containers.find(({ name }) => name === "fake-parent")!.image =
    "sha256:parent";
  engine.started = (container) => {
    const { name, id, image } = container;
    if (name !== "fake-parent") return;
    if (image === broken) {
      container.state = "exited";
      container.log = "planted fault\n";
    } else writeParentState(instance, { ...state, container: id });
  };
  context.served = serveParent(instance, context.stop.signal);
  await waitFor(() => parentAnswers(instance), {
    for: "the socket",
    timeoutMs: 5000,
  });
});
test.after.each(async ({ end, stop, served }) => {
  stop.abort();
  await served;
  end();
});

function built({ engine }: FakeInstance, parent = "sha256:new"): void {
  engine.images.set("repo-next:parent", { Id: parent, Config: {} });
  engine.images.set("repo-next:worker", { Id: "sha256:newer", Config: {} });
}

const idOf = ({ engine }: FakeInstance, name: string) =>
  (engine.images.get(name) as { Id?: string } | undefined)?.Id;

const repositories = ({ engine }: FakeInstance) =>
  new Set([...engine.images.keys()].map((name) => name.split(":")[0]));

async function upgrade(fake: FakeInstance): Promise<boolean> {
  await useNewImages(fake.instance);
  const replaced = await replaceParent(fake.instance, {}, fake.log);
  await forgetFormer(fake.instance);
  return replaced;
}

test("replaces the parent, and forgets the former one when it is done", async (fake) => {
  const { engine } = fake;
  const former = engine.find("fake-parent")?.id;
  built(fake);
  assert.ok(await upgrade(fake));
  const parent = engine.find("fake-parent");
  assert.is(parent?.image, "sha256:new");
  assert.is.not(parent?.id, former);
  assert.not(engine.find("fake-parent-former"));
  assert.equal([...repositories(fake)], ["repo"]);
  assert.is(idOf(fake, "repo:worker"), "sha256:newer");
  // Again: nothing to do.
  built(fake);
  assert.not(await upgrade(fake));
  assert.is(engine.find("fake-parent")?.id, parent?.id);
});

test("the former parent is not started by the engine while it is set aside", async (fake) => {
  const { engine } = fake;
  built(fake);
  await useNewImages(fake.instance);
  let aside: FakeContainer | undefined;
  const { started } = engine;
  engine.started = (container) => {
    aside ??= engine.find("fake-parent-former");
    started.call(engine, container);
  };
  await replaceParent(fake.instance, {}, fake.log);
  assert.is(aside?.state, "exited");
  assert.equal(aside?.spec.HostConfig?.RestartPolicy, { Name: "no" });
});

test("goes back if the new parent does not start", async (fake) => {
  const { engine, told } = fake;
  const former = engine.find("fake-parent")?.id;
  built(fake, broken);
  const failure = await upgrade(fake).then(
    () => assert.unreachable() as never,
    (error) => error,
  );
  assert.ok(failure instanceof Failure);
  assert.match(
    failure.message,
    "so the former one runs again: fake-parent ended during its start",
  );
  assert.ok(told.includes("planted fault"));
  const parent = engine.find("fake-parent");
  assert.is(parent?.id, former);
  assert.is(parent?.state, "running");
  assert.equal(parent?.spec.HostConfig?.RestartPolicy, { Name: "always" });
  assert.is(idOf(fake, "repo:parent"), "sha256:parent");
  assert.is(idOf(fake, "repo:worker"), "sha256:worker");
  assert.equal([...repositories(fake)], ["repo"]);
});

test("goes back although the former images have lost their names", async (fake) => {
  const { engine } = fake;
  const { started } = engine;
  engine.started = (container) => {
    // The container still has its image.
    engine.images.set("other:x", { Id: "sha256:parent", Config: {} });
    for (const name of engine.images.keys()) {
      if (name.startsWith("repo-former:")) engine.images.delete(name);
    }
    started.call(engine, container);
  };
  built(fake, broken);
  const failure = await upgrade(fake).catch((error) => error);
  assert.match(failure.message, "the former one runs again");
  assert.is(idOf(fake, "repo:parent"), "sha256:parent");
});

test("reports if going back fails as well", async (fake) => {
  const { engine } = fake;
  built(fake, broken);
  engine.refuses.set("rename fake-parent-former", 500);
  const failure = await upgrade(fake).catch((error) => error);
  assert.match(failure.message, /failed \(.*\), and so did going back:/);
});

test("goes on with an upgrade that was interrupted, and can still go back", async (fake) => {
  const { engine, instance } = fake;
  const former = engine.find("fake-parent")?.id;
  built(fake);
  await useNewImages(instance);
  engine.refuses.set("create fake-parent", 500);
  engine.refuses.set("rename fake-parent-former", 500);
  await replaceParent(instance, {}, fake.log).catch(() => {});
  assert.is(engine.find("fake-parent-former")?.id, former);
  assert.not(engine.find("fake-parent"));
  assert.is((await parentToUpgrade(instance))?.version, "unknown");
  engine.refuses.clear();
  // Images of yet another version: those of the former parent are kept.
  built(fake, broken);
  const failure = await upgrade(fake).catch((error) => error);
  assert.match(failure.message, "the former one runs again");
  assert.is(engine.find("fake-parent")?.id, former);
  assert.is(idOf(fake, "repo:parent"), "sha256:parent");
});

test("goes back to the running parent's images, whatever was built since", async (fake) => {
  built(fake);
  await useNewImages(fake.instance); // and was killed
  built(fake, broken);
  await upgrade(fake).catch(() => {});
  assert.is(idOf(fake, "repo:parent"), "sha256:parent");
  assert.is(idOf(fake, "repo:worker"), "sha256:worker");
});

test("of two parents of interrupted upgrades, the one that works is kept", async (fake) => {
  const { engine, instance } = fake;
  const labels = {
    [label.instance]: "fake",
    [label.role]: "parent",
    [label.home]: instance.home.home,
  };
  for (const works of [true, false]) {
    engine.add("fake-parent-former", {
      spec: { Labels: labels },
      image: "sha256:oldest",
      state: "exited",
    });
    const present = engine.find("fake-parent");
    writeParentState(instance, {
      ...state,
      container: works ? present?.id ?? "" : "another",
    });
    built(fake, broken);
    await upgrade(fake).catch(() => {});
    const back = engine.find("fake-parent")?.image;
    assert.is(back, works ? "sha256:parent" : "sha256:oldest");
    assert.not(engine.find("fake-parent-former"));
  }
});

test("the version is that of the parent's image", async (fake) => {
  const { engine, instance } = fake;
  const parent = engine.find("fake-parent")!;
  parent.spec.Labels = { ...parent.spec.Labels, [versionLabel]: "0.1.0" };
  writeParentState(instance, { ...state, container: parent.id });
  assert.equal(await parentToUpgrade(instance), {
    version: "0.1.0",
    build: "digest",
  });
  const older = await examineParent(instance, {}, "other");
  assert.match(older.says, "version 0.1.0, older than this command's");
  assert.is(older.mend, "claudy upgrade");
  parent.spec.Labels = { ...parent.spec.Labels, [versionLabel]: "99.0.0" };
  const newer = await examineParent(instance, {}, "other");
  assert.match(newer.says, "version 99.0.0, newer than this command's");
  assert.match(newer.mend ?? "", "npm install -g");
});

test("compares versions by their numbers", () => {
  const sign = (a: string, b: string) => Math.sign(compareVersions(a, b) ?? 9);
  assert.is(sign("0.10.0", "0.9.1"), 1);
  assert.is(sign("0.9.0", "0.9.1"), -1);
  assert.is(sign("1.2.3", "1.2.3"), 0);
  assert.is(compareVersions("unknown", "1.0.0"), undefined);
});

test("finds the changes between two versions", () => {
  const log = "# Changelog\n\n## Unreleased\n\n- a\n\n" +
    "## [0.3.0] - 2026-03-01\n\n- b\n\n### Added\n\n- c\n\n" +
    "## 0.2.0\n\n- d\n\n## [0.1.0]\n\n- e\n";
  assert.is(
    changesBetween(log, "0.1.0", "0.3.0"),
    "## [0.3.0] - 2026-03-01\n\n- b\n\n### Added\n\n- c\n\n## 0.2.0\n\n- d",
  );
  assert.is(changesBetween(log, "0.2.0", "0.2.0"), "");
  assert.is(changesBetween(log, "unknown", "0.3.0"), "");
});

test.run();
