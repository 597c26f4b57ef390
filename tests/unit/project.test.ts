import {
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../lib/errors.ts";
import { lookAt, realpathBeneath } from "../../lib/hostpath.ts";
import type { Instance } from "../../lib/instance.ts";
import { refusalOf, resolveProject, sessionName } from "../../lib/project.ts";

const test = suite<{ root: string }>("project");

/** A host that hides nothing, with its home out of the way. */
const instance = {
  host: { mount: "", roots: undefined },
  hostHome: { home: "/nowhere/.hal9000" },
  socket: "/nowhere/docker.sock",
} as unknown as Instance;

test.before.each((context) => {
  context.root = realpathSync(mkdtempSync(join(tmpdir(), "hal9000-project-")));
  mkdirSync(join(context.root, "home/dave/app"), { recursive: true });
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

async function kindOf(path: string, cwd: string, host = instance.host) {
  try {
    const given = { path, cwd, as: "project", allowAny: false };
    await resolveProject({ ...instance, host }, given);
  } catch (error) {
    if (error instanceof Failure) return error.kind;
    throw error;
  }
  return "none";
}

test("resolveProject() gives the real path and the owner", async ({ root }) => {
  symlinkSync("app", join(root, "home/dave/link"));
  const cwd = join(root, "home/dave");
  const given = { path: "link", cwd, as: "project", allowAny: false };
  const project = await resolveProject(instance, given);
  assert.is(project.path, join(cwd, "app"));
  assert.is(project.uid, process.getuid?.());
});

test("resolveProject() tells a missing directory from a file", async ({ root }) => {
  writeFileSync(join(root, "file"), "");
  assert.is(await kindOf("gone", root), "notFound");
  assert.is(await kindOf("file", root), "usage");
  assert.is(await kindOf("file/x", root), "usage");
  assert.is(await kindOf("x".repeat(300), root), "usage");
  assert.is(await kindOf("nu\0ll", root), "usage");
});

test("resolveProject() refuses a ring of links", async ({ root }) => {
  symlinkSync("b", join(root, "a"));
  symlinkSync("a", join(root, "b"));
  assert.is(await kindOf("a", root), "usage");
});

test("resolveProject() takes what no worker should have when it is told to", async () => {
  const given = { path: "/etc", cwd: "/", as: "project", allowAny: false };
  assert.is(await kindOf("/etc", "/"), "unsafe");
  const project = await resolveProject(instance, { ...given, allowAny: true });
  assert.is(project.path, "/etc");
});

test("inside the parent a path is absolute, and looked at below the mount", async ({ root }) => {
  const view = { mount: root, roots: ["/home/dave"] };
  assert.is(lookAt("/home/dave/app", view)?.path, "/home/dave/app");
  assert.is(await kindOf("app", "/home/dave", view), "usage");
});

test("lookAt() says nothing of what is out of sight", ({ root }) => {
  const view = { mount: root, roots: ["/home/dave"] };
  mkdirSync(join(root, "data"));
  symlinkSync("/data", join(root, "home/dave/out"));
  symlinkSync("../../data", join(root, "home/dave/up"));
  symlinkSync("/gone/far", join(root, "home/dave/dangling"));
  for (const path of ["out", "up", "dangling", "../../srv/app"]) {
    assert.is(lookAt(`/home/dave/${path}`, view), undefined, path);
  }
  assert.throws(() => lookAt("/home/dave/gone", view), /ENOENT/);
});

test("realpathBeneath() takes root for /, for links and dots alike", ({ root }) => {
  symlinkSync("/home/dave", join(root, "absolute"));
  symlinkSync("../../../../../home/dave/app", join(root, "home/dave/deep"));
  assert.is(realpathBeneath(root, "/absolute/app"), "/home/dave/app");
  assert.is(realpathBeneath(root, "/home/dave/deep"), "/home/dave/app");
  assert.is(realpathBeneath(root, "/../../home/./dave/.."), "/home");
});

const secrets = {
  home: "/home/dave/.hal9000",
  socket: "/run/user/1000/docker.sock",
};

const refused = [
  "/",
  "/etc",
  "/etc/ssl",
  "/usr",
  "/var",
  "/var/run",
  "/run",
  "/run/user/1000",
  "/proc/1",
  "/home",
  "/home/dave",
  "/home/dave/.hal9000",
  "/home/dave/.hal9000/sessions",
];

for (const path of refused) {
  test(`refusalOf() refuses ${path}`, () => {
    assert.type(refusalOf(path, secrets), "string");
  });
}

for (
  const path of [
    "/home/dave/app",
    "/home/dave/.hal9000-x",
    "/srv/app",
    "/etcetera",
  ]
) {
  test(`refusalOf() allows ${path}`, () => {
    assert.is(refusalOf(path, secrets), undefined);
  });
}

test("sessionName() is the same for a path, and another for another", () => {
  assert.is(sessionName("/home/dave/app"), sessionName("/home/dave/app"));
  assert.is.not(sessionName("/home/dave/app"), sessionName("/srv/app"));
  assert.match(sessionName("/home/dave/app"), /^claudy-app-[0-9a-f]{8}$/);
});

test("sessionName() holds only what tmux and Docker take", () => {
  for (
    const path of ["/a b/c.d:e", "/été", "/-x", "/", `/${"x".repeat(255)}`]
  ) {
    assert.match(sessionName(path), /^claudy-[A-Za-z0-9][A-Za-z0-9_-]{0,60}$/);
  }
});

test.run();
