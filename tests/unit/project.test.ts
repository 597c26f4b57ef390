import {
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../lib/std/errors.ts";
import { lookAt, realpathBeneath } from "../../lib/std/hostpath.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  resolveGiven,
  resolveProject,
  sessionName,
} from "../../lib/project/project.ts";
import { readSecret } from "../../lib/worker/secrets.ts";
import { passwdHomes, refusalOf } from "../../lib/instance/protected.ts";

const test = suite<{ root: string }>("project");

/** A fully visible host, with the home outside of the tested paths. */
const instance = {
  host: { mount: "", roots: undefined },
  home: homePaths("/nowhere/.hal9000"),
  hostHome: { home: "/nowhere/.hal9000" },
  socket: "/nowhere/docker.sock",
  places: { userHomes: [], checkouts: [] },
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

test("resolveProject() returns the real path and the owner", async ({ root }) => {
  symlinkSync("app", join(root, "home/dave/link"));
  const cwd = join(root, "home/dave");
  const given = { path: "link", cwd, as: "project", allowAny: false };
  const project = await resolveProject(instance, given);
  assert.is(project.path, join(cwd, "app"));
  assert.is(project.uid, process.getuid?.());
});

test("resolveProject() distinguishes a missing directory from a file", async ({ root }) => {
  writeFileSync(join(root, "file"), "");
  assert.is(await kindOf("gone", root), "notFound");
  assert.is(await kindOf("file", root), "usage");
  assert.is(await kindOf("file/x", root), "usage");
  assert.is(await kindOf("x".repeat(300), root), "usage");
  assert.is(await kindOf("nu\0ll", root), "usage");
});

test("resolveProject() refuses a loop of links", async ({ root }) => {
  symlinkSync("b", join(root, "a"));
  symlinkSync("a", join(root, "b"));
  assert.is(await kindOf("a", root), "usage");
});

test("resolveProject() accepts refused paths with allowAny", async () => {
  const given = { path: "/etc", cwd: "/", as: "project", allowAny: false };
  assert.is(await kindOf("/etc", "/"), "unsafe");
  const project = await resolveProject(instance, { ...given, allowAny: true });
  assert.is(project.path, "/etc");
});

test("resolveGiven() allows files of the checkout only read-only", async ({ root }) => {
  const places = { userHomes: [], checkouts: [root] };
  const here = { ...instance, places };
  const given = { path: root, cwd: "/", as: "mount", allowAny: false };
  const found = await resolveGiven(here, { ...given, readOnly: true });
  assert.is(found.path, root);
  try {
    await resolveGiven(here, given);
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, "run on the host");
  }
});

test("inside the parent, paths are absolute and inspected below the mount", async ({ root }) => {
  const view = { mount: root, roots: ["/home/dave"] };
  assert.is(lookAt("/home/dave/app", view)?.path, "/home/dave/app");
  assert.is(await kindOf("app", "/home/dave", view), "usage");
});

test("lookAt() is undefined outside of the visible roots", ({ root }) => {
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

test("readSecret() reads files below the roots, and follows no links out of them", ({ root }) => {
  const view = { mount: root, roots: ["/home/dave"] };
  const read = (file: string) =>
    readSecret(`KEY=${file}`, {}, view, "/home/dave").value.toString();
  writeFileSync(join(root, "home/dave/key"), "mine");
  writeFileSync(join(root, "other"), "not mine");
  symlinkSync("/other", join(root, "home/dave/out"));
  symlinkSync("/home/dave/key", join(root, "home/dave/in"));
  assert.is(read("key"), "mine");
  assert.is(read("in"), "mine");
  for (const file of ["out", "/other", "gone"]) {
    assert.throws(() => read(file), /Cannot read the file of secret KEY/);
  }
});

test("realpathBeneath() treats root as / for links and dots", ({ root }) => {
  symlinkSync("/home/dave", join(root, "absolute"));
  symlinkSync("../../../../../home/dave/app", join(root, "home/dave/deep"));
  assert.is(realpathBeneath(root, "/absolute/app"), "/home/dave/app");
  assert.is(realpathBeneath(root, "/home/dave/deep"), "/home/dave/app");
  assert.is(realpathBeneath(root, "/../../home/./dave/.."), "/home");
});

const secrets = {
  home: "/home/dave/.hal9000",
  socket: "/run/user/1000/docker.sock",
  userHomes: ["/root", "/home/dave", "/srv/people/eve"],
  checkouts: ["/home/dave/src/hal9000"],
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
  "/srv/people/eve",
  "/srv/people",
  "/root",
  "/home/dave/.ssh",
  "/home/dave/.gnupg",
  "/home/dave/.aws/sso",
  "/home/dave/.config",
  "/home/dave/.config/gcloud",
  "/home/dave/.kube",
  "/home/dave/.docker",
  "/home/dave/.claude",
  "/home/dave/.claude/projects",
  "/home/dave/.local/share/keyrings",
  "/home/dave/.password-store",
  "/home/dave/.azure",
  "/home/dave/.bashrc",
  "/home/stranger/.config",
  "/home/stranger/.claude",
  "/srv/people/eve/.docker",
  "/mnt/disk/old-home/.ssh",
  "/home/dave/src/hal9000",
  "/home/dave/src/hal9000/scripts",
  "/home/dave/src",
];

for (const path of refused) {
  test(`refusalOf() refuses ${path}`, () => {
    assert.type(refusalOf(path, secrets), "string");
  });
}

test("refusalOf() refuses root's keys for any passwd file", () => {
  const known = { ...secrets, userHomes: [] };
  for (const path of ["/root/.config/gh", "/root/.docker", "/root/.claude"]) {
    assert.type(refusalOf(path, known), "string");
  }
});

for (
  const path of [
    "/home/dave/app",
    "/home/dave/.hal9000-x",
    "/home/dave/hal9000-sample",
    "/home/dave/src/hal9000-fork",
    "/home/dave/src/app/.claude/worktrees/fix",
    "/home/dave/app/.config",
    "/home/dave/.local/share/chezmoi",
    "/home/dave/.sshd-config",
    "/srv/people/eve/app",
    "/srv/app",
    "/etcetera",
  ]
) {
  test(`refusalOf() allows ${path}`, () => {
    assert.is(refusalOf(path, secrets), undefined);
  });
}

test("passwdHomes() returns the homes of root and regular users", () => {
  const text = [
    "root:x:0:0:root:/root:/bin/bash",
    "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin",
    "dave:x:1000:1000:Dave:/home/dave:/bin/zsh",
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin",
    "broken",
    "",
  ].join("\n");
  assert.equal(passwdHomes(text), ["/root", "/home/dave"]);
});

test("lookAt() is correct while a path is exchanged with a link", ({ root }) => {
  const app = join(root, "home/dave/app");
  mkdirSync(join(root, "secret"));
  const secret = statSync(join(root, "secret"));
  symlinkSync(join(root, "secret"), join(root, "home/dave/link"));
  const helper = join(import.meta.dirname ?? "", "../helper/exchange.ts");
  const link = join(root, "home/dave/link");
  const exchange = spawn(process.execPath, ["run", "-A", helper, app, link]);
  try {
    for (let look = 0; look < 500; look++) {
      let found;
      try {
        found = lookAt(app, instance.host);
      } catch (error) {
        assert.is((error as { code: string }).code, "EAGAIN");
        continue;
      }
      assert.is(found?.kind, "directory");
      const isSecret = found?.inode === `${secret.dev}:${secret.ino}`;
      assert.is(isSecret, found?.path === join(root, "secret"));
    }
  } finally {
    exchange.kill("SIGKILL");
  }
});

test("sessionName() is stable for a path, and different for other paths", () => {
  assert.is(sessionName("/home/dave/app"), sessionName("/home/dave/app"));
  assert.is.not(sessionName("/home/dave/app"), sessionName("/srv/app"));
  assert.match(sessionName("/home/dave/app"), /^claudy-app-[0-9a-f]{8}$/);
});

test("sessionName() has only characters that tmux and Docker accept", () => {
  for (
    const path of ["/a b/c.d:e", "/été", "/-x", "/", `/${"x".repeat(255)}`]
  ) {
    assert.match(sessionName(path), /^claudy-[A-Za-z0-9][A-Za-z0-9_-]{0,60}$/);
  }
});

test.run();
