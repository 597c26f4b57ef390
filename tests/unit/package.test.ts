// What npm packs, and where an installation finds its parts.

import { readdirSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { imagePackages, readLockfile } from "../../lib/image/packages.ts";
import { clonePlaces, installedPlaces } from "../../lib/image/places.ts";
import { recipes } from "../../lib/image/recipes.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  installationPrefix,
  moduleDirectories,
} from "../../lib/std/checkout.ts";
import manifest from "../../package.json" with { type: "json" };

test("every script but those of a clone is a command, and npx runs claudy", () => {
  const scripts = readdirSync("scripts").filter((name) => name.endsWith(".ts"))
    .map((name) => name.slice(0, -".ts".length))
    .filter((name) => name !== "build" && name !== "up");
  const commands = Object.entries(manifest.bin);
  const expected = scripts.map((name) => [
    name === "claudy" ? name : `hal9000-${name}`,
    `dist/bin/${name}.js`,
  ]);
  assert.equal(
    commands.sort(),
    [
      ...expected,
      [manifest.name, "dist/bin/claudy.js"],
    ].sort(),
  );
});

test("an installation runs no scripts of other packages", async () => {
  const { packages } = await readLockfile("package-lock.json");
  const installed = Object.entries(packages)
    .filter(([path, entry]) => path !== "" && !entry["dev"])
    .filter(([, entry]) => entry["hasInstallScript"])
    .map(([path]) => path);
  assert.equal(installed, []);
  assert.equal(Object.keys(manifest.scripts), ["prepack"]);
});

test("imagePackages() has the integrity of each package in images", async () => {
  const { packages } = imagePackages(await readLockfile("package-lock.json"));
  for (const cpu of ["x64", "arm64"]) {
    for (const name of recipes.flatMap(({ packages }) => packages(cpu))) {
      const entry = packages[`node_modules/${name}`];
      assert.match(entry?.integrity ?? "", /^sha512-/, name);
    }
  }
});

test("an installation writes below HAL9000_HOME only, a clone into itself", () => {
  const home = homePaths("/home/me/.hal9000");
  const { context, work, log } = installedPlaces("/usr/lib/x", home);
  for (const path of [context, work, log("parent")]) {
    assert.ok(path.startsWith("/home/me/.hal9000/"), path);
  }
  const clone = clonePlaces("/src/x");
  assert.equal([clone.context, clone.work], ["/src/x/docker", "/src/x/build"]);
});

test("moduleDirectories() are those in which npm places dependencies, and none above", () => {
  assert.equal(moduleDirectories("/home/my prefix/lib/node_modules/x"), [
    "/home/my prefix/lib/node_modules/x/node_modules",
    "/home/my prefix/lib/node_modules",
  ]);
  assert.equal(moduleDirectories("/a/node_modules/b/node_modules/@c/x"), [
    "/a/node_modules/b/node_modules/@c/x/node_modules",
    "/a/node_modules/b/node_modules",
    "/a/node_modules",
  ]);
  assert.equal(moduleDirectories("/tmp/clone"), ["/tmp/clone/node_modules"]);
});

test("installationPrefix() is that of a global installation", () => {
  const prefix = (root: string) => installationPrefix(root);
  assert.is(prefix("/home/my prefix/lib/node_modules/x"), "/home/my prefix");
  assert.is(prefix("/home/me/project/node_modules/x"), undefined);
  assert.is(prefix("/home/me/src/x"), undefined);
});

test("the package is published with what it needs", () => {
  assert.not("private" in manifest);
  for (const name of ["chromadb", "deno", "claude-code"]) {
    assert.match(
      Object.keys(manifest.optionalDependencies).join(" "),
      new RegExp(`${name}.*x64.*`),
    );
  }
});

test.run();
