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
import {
  passwdHomes,
  placeEnv,
  refusalOf,
  userPlaces,
} from "../../lib/instance/protected.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { writeSession } from "../../lib/instance/session-record.ts";
import { ownerOf } from "../../lib/std/owned.ts";

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

/** Why a path is refused, in an instance with a session of each project. */
async function refusalAt(
  root: string,
  path: string,
  { projects, host = instance.host, allowAny = false, records = [] }: {
    projects: string[];
    host?: Instance["host"];
    allowAny?: boolean;
    records?: string[];
  },
): Promise<string> {
  const home = homePaths(join(root, "hal9000"));
  const owner = ownerOf(root);
  for (const directory of [home.sessions, home.kept]) {
    mkdirSync(directory, { recursive: true });
  }
  const at = "2026-01-02T03:04:05.000Z";
  for (const [index, project] of projects.entries()) {
    const name = `session-${index}`;
    const times = { createdAt: at, usedAt: at };
    writeSession({ home, owner }, { version: 1, name, project, ...times });
  }
  for (const project of records) {
    writeRecord({ home, owner }, {
      version: 1,
      worker: "x",
      container: "id",
      session: null,
      project: { path: project, uid: 1, gid: 1 },
      image: "i",
      born: "cold",
      home: "workers/x",
      ephemeral: false,
      secrets: null,
      memoryBytes: null,
      oomKilledAt: null,
      createdAt: at,
    });
  }
  const here = { ...instance, home, owner, host } as Instance;
  const given = { path, cwd: root, as: "project", allowAny };
  return await resolveGiven(here, given).then(
    ({ path }) => `accepted: ${path}`,
    (error: Failure) => `${error.kind}: ${error.message}`,
  );
}

test("a link that a worker may have placed in its project is not followed out of it", async ({ root }) => {
  const app = join(root, "home/dave/app");
  const other = join(root, "home/dave/other");
  mkdirSync(join(app, "inner"));
  mkdirSync(join(other, "deep"), { recursive: true });
  symlinkSync(other, join(app, "out"));
  symlinkSync("inner", join(app, "in"));
  symlinkSync(app, join(root, "alias"));
  symlinkSync(other, join(root, "elsewhere"));
  const refused = (to: string) =>
    `a link in project ${app} leads to ${join(root, "home/dave", to)}`;
  const projects = ["/nowhere", app];
  const at = (path: string) => refusalAt(root, path, { projects });
  assert.match(await at(join(app, "out")), refused("other"));
  assert.match(await at(join(app, "out/deep")), refused("other/deep"));
  // Also if the project itself is reached through a link.
  assert.match(await at("alias/out"), refused("other"));
  assert.is(await at(join(app, "in")), `accepted: ${join(app, "inner")}`);
  assert.is(await at(app), `accepted: ${app}`);
  assert.is(await at("alias"), `accepted: ${app}`);
  // A link that is in no project was made by the user.
  assert.is(await at("elsewhere"), `accepted: ${other}`);
  const unknown = await refusalAt(root, join(app, "out"), {
    projects: [],
    allowAny: true,
  });
  assert.is(unknown, `accepted: ${other}`);
});

test("a project is known from its session, or from the record of a worker", async ({ root }) => {
  const app = join(root, "home/dave/app");
  mkdirSync(join(root, "home/dave/other"));
  symlinkSync("../other", join(app, "out"));
  const path = join(app, "out");
  const free = await refusalAt(root, path, { projects: [] });
  assert.match(free, /^accepted/);
  const recorded = await refusalAt(root, path, {
    projects: [],
    records: [app],
  });
  assert.match(recorded, /^unsafe: Cannot use ".*out" as project: a link in/);
});

test("a project's own path may be replaced by a link", async ({ root }) => {
  const former = join(root, "home/dave/former");
  symlinkSync("app", former);
  assert.is(
    await refusalAt(root, former, { projects: [former] }),
    `accepted: ${join(root, "home/dave/app")}`,
  );
});

test("inside the parent, links in projects are followed no further", async ({ root }) => {
  const host = { mount: root, roots: ["/home/dave"] };
  mkdirSync(join(root, "home/dave/other"));
  symlinkSync("../other", join(root, "home/dave/app/out"));
  const projects = ["/home/dave/app"];
  assert.match(
    await refusalAt(root, "/home/dave/app/out", { projects, host }),
    "a link in project /home/dave/app leads to /home/dave/other",
  );
  const relative = await refusalAt(root, "app", { projects, host });
  assert.match(relative, "inside the parent it must be an absolute path");
});

const pathFaults: [what: string, path: string, says: string][] = [
  ["missing", "gone", "notFound: .* there is no such file or directory"],
  ["below a file", "file/x", "usage: .* a part of it is not a directory"],
  ["too long", "x".repeat(300), "usage: .* it is too long"],
  ["with a null byte", "nu\0ll", "usage: .* it has a null byte"],
  ["in a loop of links", "loop", "usage: .* it has too many symbolic links"],
];

for (const [what, path, says] of pathFaults) {
  test(`a path that is ${what} is refused with the reason`, async ({ root }) => {
    writeFileSync(join(root, "file"), "");
    symlinkSync("loop", join(root, "loop"));
    const refusal = await refusalAt(root, path, { projects: [] });
    assert.match(refusal, RegExp(`^${says}$`, "s"));
  });
}

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
  "/home/dave/.local/share",
  "/home/dave/.local",
  "/home/dave/.cargo",
  "/home/stranger/.m2",
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

const keys = [
  ...[".1password", ".bash_history", ".bash_profile", ".bashrc", ".config"],
  ...[".cargo/credentials.toml", ".claude", ".claude.json", ".docker"],
  ...[".gem/credentials", ".git-credentials", ".gitconfig", ".local/bin"],
  ...[".local/share/applications", ".local/share/keyrings", ".m2/settings.xml"],
  ...[".local/share/kwalletd", ".local/share/systemd", ".mozilla", ".netrc"],
  ...[".npmrc", ".pki", ".profile", ".pypirc", ".subversion/auth", "snap"],
  ...[".terraform.d", ".thunderbird", ".vault-token", ".zprofile", ".zshrc"],
  ...[".zsh_history", ".zshenv"],
];

test("refusalOf() names the keys, logins and settings in a home directory", () => {
  for (const home of ["/home/dave", "/root", "/home/stranger"]) {
    for (const name of keys) {
      const reason = `${home}/${name} holds keys, logins or settings`;
      assert.is(refusalOf(`${home}/${name}`, secrets), reason);
      assert.is(refusalOf(`${home}/${name}/below`, secrets), reason);
      assert.is(refusalOf(`${home}/app/${name}`, secrets), undefined);
    }
  }
  for (
    const name of [".aws", ".azure", ".gnupg", ".kube", ".password-store"]
  ) {
    assert.is(
      refusalOf(`/srv/app/${name}/x`, secrets),
      `/srv/app/${name} holds keys, logins or settings`,
    );
  }
});

const trees = [
  ...["/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc"],
  ...["/run", "/sbin", "/sys", "/var/lib", "/var/log", "/var/run"],
  // macOS, and Windows in WSL
  ...["/Library", "/System", "/private/etc", "/private/var/db"],
  ...["/mnt/c/Windows", "/mnt/c/Program Files", "/mnt/wsl"],
];

const directories = [
  ...["/", "/home", "/media", "/mnt", "/opt", "/srv", "/tmp", "/usr"],
  ...["/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share"],
  ...["/var", "/var/tmp", "/Applications", "/Users/Shared", "/Volumes"],
  ...["/private", "/private/tmp", "/private/var", "/mnt/c"],
];

test("refusalOf() refuses system trees with everything in them, and other directories only themselves", () => {
  const nowhere = { home: "/nowhere/home", socket: "/nowhere/socket" };
  for (const path of trees) {
    assert.is(refusalOf(path, nowhere), "it is part of the system");
    assert.is(refusalOf(`${path}/x`, nowhere), "it is part of the system");
  }
  for (const path of directories) {
    assert.is(refusalOf(path, nowhere), "it is a system directory");
    const below = `${path.replace(/\/$/, "")}/x/app`;
    assert.is(refusalOf(below, nowhere), undefined);
  }
});

test("refusalOf() knows the homes of macOS and of Windows", () => {
  const nowhere = { home: "/nowhere/home", socket: "/nowhere/socket" };
  for (const home of ["/Users/dave", "/mnt/c/Users/dave"]) {
    assert.is(refusalOf(home, nowhere), "it is a home directory");
    for (const name of [".ssh", "Library", "AppData", ".config"]) {
      assert.is(
        refusalOf(`${home}/${name}/x`, nowhere),
        `${home}/${name} holds keys, logins or settings`,
      );
    }
    assert.is(refusalOf(`${home}/app`, nowhere), undefined);
  }
  assert.is(refusalOf("/Users", nowhere), "it is a system directory");
  assert.is(refusalOf("/mnt/c/Users", nowhere), "it is a system directory");
  assert.is(refusalOf("/Volumes/disk/app", nowhere), undefined);
});

test("refusalOf() says what a directory is or contains", () => {
  const reasons: Record<string, string> = {
    "/home/dave/.hal9000": "it is part of HAL9000_HOME",
    "/home/dave/.hal9000/x": "it is part of HAL9000_HOME",
    "/srv/people": "it contains the home directory /srv/people/eve",
    "/srv/people/eve": "it is a home directory",
    // More useful than that it contains HAL9000_HOME.
    "/home/dave": "it is a home directory",
    "/home/dave/src": "the scripts in /home/dave/src/hal9000 run on the host",
    "/home/dave/src/hal9000/lib":
      "the scripts in /home/dave/src/hal9000 run on the host",
  };
  for (const [path, reason] of Object.entries(reasons)) {
    assert.is(refusalOf(path, secrets), reason);
  }
  const elsewhere = { home: "/data/x/home", socket: "/data/y/docker.sock" };
  assert.is(
    refusalOf("/data/x", elsewhere),
    "it contains HAL9000_HOME, /data/x/home",
  );
  assert.is(refusalOf("/data/y", elsewhere), "it contains the engine's socket");
  assert.is(refusalOf("/data/z", elsewhere), undefined);
});

test("userPlaces() passes the host's places to the parent, which takes only absolute ones", () => {
  const places = { userHomes: ["/home/a", "/home/b"], checkouts: ["/src/c"] };
  const env = { ...placeEnv(places), HAL9000_ROLE: "parent" };
  assert.equal(userPlaces(env), places);
  assert.equal(userPlaces({ ...env, HAL9000_HOST_HOMES: "a:/home/b:" }), {
    ...places,
    userHomes: ["/home/b"],
  });
  assert.equal(userPlaces({ HAL9000_ROLE: "parent" }), {
    userHomes: [],
    checkouts: [],
  });
});

test("userPlaces() on the host knows the user's home, with links resolved", ({ root }) => {
  symlinkSync("home/dave", join(root, "link"));
  const homesOf = (HOME: string) => userPlaces({ HOME }).userHomes;
  assert.is(homesOf(join(root, "link"))[0], join(root, "home/dave"));
  for (const home of ["/", "/usr", "/etc/x", "relative", "/a:b"]) {
    assert.not.ok(homesOf(home).includes(home), home);
  }
  assert.is(userPlaces({ HOME: root }).checkouts.length, 1);
});

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
