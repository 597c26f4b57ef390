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
import {
  realpathBeneath,
  refusalOf,
  resolveProject,
  sessionName,
} from "../../lib/project.ts";

const test = suite<{ root: string }>("project");
const host = { mount: "", roots: undefined };

test.before.each((context) => {
  context.root = realpathSync(mkdtempSync(join(tmpdir(), "hal9000-project-")));
  mkdirSync(join(context.root, "home/dave/app"), { recursive: true });
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

function kindOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof Failure) return error.kind;
    throw error;
  }
  return "none";
}

test("resolveProject() gives the real path and the owner", ({ root }) => {
  symlinkSync("app", join(root, "home/dave/link"));
  const app = join(root, "home/dave/app");
  const project = resolveProject("link", host, join(root, "home/dave"));
  assert.is(project.path, app);
  assert.is(project.uid, process.getuid?.());
});

test("resolveProject() tells a missing directory from a file", ({ root }) => {
  writeFileSync(join(root, "file"), "");
  assert.is(kindOf(() => resolveProject("gone", host, root)), "notFound");
  assert.is(kindOf(() => resolveProject("file", host, root)), "usage");
  assert.is(kindOf(() => resolveProject("file/x", host, root)), "usage");
  const long = "x".repeat(300);
  assert.is(kindOf(() => resolveProject(long, host, root)), "usage");
});

test("resolveProject() refuses a ring of links", ({ root }) => {
  symlinkSync("b", join(root, "a"));
  symlinkSync("a", join(root, "b"));
  assert.is(kindOf(() => resolveProject("a", host, root)), "usage");
});

test("resolveProject() inside the parent looks below its mount", ({ root }) => {
  const view = { mount: root, roots: ["/home/dave"] };
  const project = resolveProject("/home/dave/app", view, "/root");
  assert.is(project.path, "/home/dave/app");
  assert.is(kindOf(() => resolveProject("/srv/app", view, "/")), "notFound");
  assert.is(kindOf(() => resolveProject("app", view, "/home/dave")), "usage");
});

test("resolveProject() inside the parent follows no link out of its roots", ({ root }) => {
  const view = { mount: root, roots: ["/home/dave"] };
  mkdirSync(join(root, "data"));
  symlinkSync("/data", join(root, "home/dave/out"));
  symlinkSync("../../data", join(root, "home/dave/up"));
  for (const link of ["out", "up"]) {
    const path = `/home/dave/${link}`;
    assert.is(kindOf(() => resolveProject(path, view, "/")), "notFound");
  }
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
