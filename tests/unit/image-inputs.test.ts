// The digest of an image's inputs, and the archive that is copied into a container.

import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { inputsDigest, stageInputs } from "../../lib/image/inputs.ts";
import { clonePlaces, installedPlaces } from "../../lib/image/places.ts";
import {
  contextFiles,
  type ImageRecipe,
  recipes,
} from "../../lib/image/recipes.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { linkArchive } from "../../lib/std/archive.ts";
import type { Failure } from "../../lib/std/errors.ts";

const test = suite<{ root: string }>("image inputs");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-inputs-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

const recipe = {
  ...(recipes[0] as ImageRecipe),
  name: "parent",
  files: ["entry.sh"],
  packages: (cpu: string) => [`tool-${cpu}`],
  scripts: true,
} satisfies ImageRecipe;

function lay(root: string, files: Record<string, string>): void {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(root, name, ".."), { recursive: true });
    writeFileSync(join(root, name), text);
  }
}

const lock = (x64: string, arm64 = "sha512-arm") =>
  JSON.stringify({
    packages: {
      "node_modules/tool-x64": { integrity: x64 },
      "node_modules/tool-arm64": { integrity: arm64 },
      "node_modules/other": {},
    },
  });

const whole = {
  "package-lock.json": lock("sha512-one"),
  "docker/Dockerfile.parent": "FROM x",
  "docker/Dockerfile.worker": "FROM y",
  "docker/entry.sh": "echo",
  "docker/other.sh": "echo",
  "docker/build/scripts/one.js": "1",
  "docker/build/scripts/chunks/two.js": "2",
  "docker/build/claude": "binary",
};

test("the digest of an image changes with each of its inputs, and with no other file", async ({ root }) => {
  lay(root, whole);
  const digest = (below = ["1.0", "sha256:base"], arch = "amd64") =>
    inputsDigest(clonePlaces(root), recipe, arch, below);
  const first = await digest();
  assert.match(first, /^[0-9a-f]{16}$/);
  assert.is(await digest(), first);
  const seen = [first];
  const changes: Record<string, string>[] = [
    { "package-lock.json": lock("sha512-two") },
    { "docker/Dockerfile.parent": "FROM z" },
    { "docker/entry.sh": "exit" },
    { "docker/build/scripts/one.js": "3" },
    { "docker/build/scripts/chunks/two.js": "4" },
    { "docker/build/scripts/three.js": "" },
  ];
  for (const change of changes) {
    lay(root, change);
    seen.push(await digest());
  }
  seen.push(await digest(["1.1", "sha256:base"]));
  seen.push(await digest(["1.0", "sha256:other"]));
  seen.push(await digest(["1.0", "sha256:base"], "arm64"));
  assert.is(new Set(seen).size, seen.length);
  const last = await digest();
  lay(root, {
    "package-lock.json": lock("sha512-two", "sha512-new"),
    "docker/Dockerfile.worker": "FROM z",
    "docker/other.sh": "exit",
    "docker/build/claude": "another",
  });
  assert.is(await digest(), last);
  rmSync(join(root, "docker", "build"), { recursive: true });
  const bare = { ...recipe, scripts: false };
  assert.match(
    await inputsDigest(clonePlaces(root), bare, "amd64", []),
    /^\w{16}$/,
  );
});

test("a package without an integrity, or another architecture, is refused", async ({ root }) => {
  lay(root, whole);
  const refusal = (packages: string[], arch = "amd64") =>
    inputsDigest(
      clonePlaces(root),
      { ...recipe, packages: () => packages },
      arch,
      [],
    )
      .then(() => "", ({ message }: Failure) => message);
  for (const name of ["other", "unknown"]) {
    assert.is(
      await refusal([name]),
      `package-lock.json has no integrity for ${name}`,
    );
  }
  assert.is(await refusal([], "riscv64"), "Cannot build images for riscv64");
});

test("a read-only installation is staged as the context of all images, readable by all", async ({ root }) => {
  const installed = join(root, "lib/node_modules/hal");
  const names = recipes.flatMap(contextFiles)
    .filter((name) => !name.startsWith("build/"));
  lay(root, {
    ...Object.fromEntries(
      [...names, ".dockerignore", "seccomp-default.json"].map((name) => [
        `lib/node_modules/hal/docker/${name}`,
        name,
      ]),
    ),
    "lib/node_modules/hal/package.json": "{}",
    "lib/node_modules/hal/dist/packages.json": lock("x"),
    "lib/node_modules/hal/dist/chroma.mjs": "chroma",
    "lib/node_modules/hal/dist/image/chunks/one.js": "1",
    // npm may place dependencies beside the package.
    "lib/node_modules/@anthropic-ai/claude-code-linux-x64/claude": "claude",
    "lib/node_modules/@deno/linux-x64-glibc/deno": "deno",
    "lib/node_modules/chromadb-js-bindings-linux-x64-gnu/a.node": "node",
  });
  execFileSync("chmod", ["-R", "u=rX,go=", join(root, "lib")]);
  const places = installedPlaces(installed, homePaths(join(root, "home")));
  const { context } = places;
  lay(context, { "left-by-a-killed-build": "" });
  await stageInputs(places, "amd64", () => {});
  const files = execFileSync("find", [context, "-type", "f", "-perm", "-644"], {
    encoding: "utf8",
  });
  assert.equal(
    files.trim().split("\n").map((path) => relative(context, path)).sort(),
    [
      ...new Set([...names, ".dockerignore"]),
      "build/chromadb/chroma.mjs",
      "build/chromadb/node_modules/chromadb-js-bindings-linux-x64-gnu/a.node",
      "build/claude",
      "build/deno",
      "build/scripts/chunks/one.js",
    ].sort(),
  );
  execFileSync("chmod", ["-R", "u+w", join(root, "lib")]);
});

const links = [
  "etc/localtime",
  `${"d".repeat(90)}/${"n".repeat(100)}`,
  `${"d".repeat(77)}/${"e".repeat(77)}/${"n".repeat(99)}`,
  `${"x".repeat(100)}`,
];

for (const path of links) {
  test(`tar reads an archive with a link of ${path.length} characters`, ({ root }) => {
    const archive = join(root, "link.tar");
    writeFileSync(archive, linkArchive(`/${path}`, "/usr/share/target"));
    const listed = execFileSync(
      "tar",
      ["--numeric-owner", "-tvf", archive],
      { encoding: "utf8" },
    );
    assert.match(listed, /^lrwxrwxrwx 0\/0 /);
    assert.ok(listed.endsWith(` ${path} -> /usr/share/target\n`), listed);
  });
}

test("a path that fits in no archive is refused", () => {
  for (
    const path of [
      "x".repeat(101),
      `d/${"x".repeat(101)}`,
      `${"d".repeat(156)}/${"x".repeat(100)}`,
      `é${"x".repeat(99)}`,
    ]
  ) {
    assert.throws(() => linkArchive(path, "t"), /too long for a tar archive/);
  }
});

test.run();
