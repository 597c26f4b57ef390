import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { profileImage } from "../../lib/image/profiles.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  checkProfile,
  detectProfile,
  profileOf,
  userProfiles,
} from "../../lib/project/profile.ts";

const test = suite<{ root: string }>("profile");
const host = { mount: "", roots: undefined };
const silent = () => {};

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-profile-"));
});

test.after.each(({ root }) => rmSync(root, { recursive: true }));

function lay(root: string, ...files: string[]): void {
  for (const file of files) writeFileSync(join(root, file), "");
}

const cases: [files: string[], profile: string][] = [
  [[], "base"],
  [["Makefile"], "base"],
  [["pom.xml"], "java"],
  [["build.gradle"], "java"],
  [["build.gradle.kts"], "java"],
  [["pyproject.toml"], "python"],
  [["Pipfile"], "python"],
  [["requirements.txt"], "python"],
  [["package.json"], "node"],
  [["package.json", "requirements.txt"], "python"],
  [["package.json", "requirements.txt", "pom.xml"], "java"],
];

for (const [files, profile] of cases) {
  test(`detectProfile() detects ${profile} from ${files.join(" and ") || "no files"}`, ({ root }) => {
    lay(root, ...files);
    assert.is(detectProfile(root, host), profile);
  });
}

test("detectProfile() ignores subdirectories", ({ root }) => {
  mkdirSync(join(root, "web"));
  lay(root, "web/package.json");
  assert.is(detectProfile(root, host), "base");
});

test("detectProfile() works inside the parent", ({ root }) => {
  mkdirSync(join(root, "host/app"), { recursive: true });
  lay(root, "host/app/package.json");
  const mount = join(root, "host");
  assert.is(detectProfile("/app", { mount, roots: ["/app"] }), "node");
});

test("detectProfile() follows no links, which could reveal files of the host", ({ root }) => {
  symlinkSync("/etc/hostname", join(root, "requirements.txt"));
  assert.is(detectProfile(root, host), "base");
});

test("profileOf() prefers the chosen, then the configured, then the detected profile", ({ root }) => {
  lay(root, "package.json");
  assert.is(profileOf(root, host, undefined, silent).name, "node");
  writeFileSync(join(root, ".hal9000.conf"), "HAL9000_PROFILE=python\n");
  assert.is(profileOf(root, host, undefined, silent).name, "python");
  assert.is(profileOf(root, host, "auto", silent).name, "python");
  assert.is(profileOf(root, host, "java", silent).name, "java");
});

test("profileOf() reads names of packages", ({ root }) => {
  writeFileSync(
    join(root, ".hal9000.conf"),
    'HAL9000_APT=" jq  g++ libxml2-dev"\n',
  );
  assert.equal(profileOf(root, host, undefined, silent), {
    name: "base",
    packages: ["jq", "g++", "libxml2-dev"],
  });
});

for (
  const word of [
    "--allow-downgrades",
    "jq;id",
    "$(id)",
    "./x.deb",
    "jq/sid",
    "jq=1",
    "Jq",
    "jq-",
    "x",
  ]
) {
  test(`profileOf() refuses the package ${word}, and reports file and line`, ({ root }) => {
    writeFileSync(join(root, ".hal9000.conf"), `\nHAL9000_APT=jq ${word}\n`);
    assert.throws(
      () => profileOf(root, host, undefined, silent),
      /\.hal9000\.conf:2: HAL9000_APT must be names of Debian packages, got "jq /,
    );
  });
}

test("profileOf() reports a setting that projects do not have", ({ root }) => {
  writeFileSync(
    join(root, ".hal9000.conf"),
    "HAL9000_ATP=jq\nWORKER_MEMORY=1t\n",
  );
  const told: string[] = [];
  profileOf(root, host, undefined, (line) => told.push(line));
  assert.is(told.length, 2);
  assert.match(
    told[0] ?? "",
    /HAL9000_ATP is not a project setting.*HAL9000_APT/,
  );
});

test("profileOf() follows no links", ({ root }) => {
  lay(root, "elsewhere");
  writeFileSync(join(root, "elsewhere"), "HAL9000_PROFILE=java\n");
  symlinkSync(join(root, "elsewhere"), join(root, ".hal9000.conf"));
  assert.is(profileOf(root, host, undefined, silent).name, "base");
});

test("userProfiles() lists directories with a valid name and a Dockerfile", ({ root }) => {
  const home = homePaths(root);
  for (const name of ["rust", "empty", "-x", "Upper"]) {
    mkdirSync(home.profile(name), { recursive: true });
    if (name !== "empty") lay(home.profile(name), "Dockerfile");
  }
  assert.equal(userProfiles(home), ["rust"]);
  assert.is(checkProfile("rust", home), "rust");
  assert.throws(
    () => checkProfile("rusty", home),
    /There is no profile "rusty"/,
  );
  assert.throws(
    () => checkProfile("../x", home),
    /must be the name of a profile/,
  );
});

test("profileImage() is specific to the instance unless the layer is shipped", ({ root }) => {
  const home = homePaths(root);
  const settings = { HAL9000_IMAGE_REPO: "r/x", WORKER_IMAGE: "" };
  const instance = { home, settings, prefix: "mine" } as unknown as Instance;
  const image = (name: string, ...packages: string[]) =>
    profileImage(instance, { name, packages });
  assert.is(image("base"), "r/x:worker");
  assert.is(image("python"), "r/x:worker-python");
  mkdirSync(home.profile("python"), { recursive: true });
  lay(home.profile("python"), "Dockerfile");
  assert.is(image("python"), "mine-profile:python");
  assert.match(image("base", "jq"), /^mine-apt:[0-9a-f]{16}$/);
  assert.is(image("base", "jq", "git"), image("base", "git", "jq", "jq"));
  assert.is.not(image("base", "jq"), image("node", "jq"));
});

test.run();
