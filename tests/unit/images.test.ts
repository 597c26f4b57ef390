import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import { baseImage, debianPackages, imagesBase } from "../../lib/image/base.ts";
import { buildArguments } from "../../lib/image/build.ts";
import { contextParts } from "../../lib/image/context.ts";
import { orphanedNames } from "../../lib/doctor/prune.ts";
import {
  chosenImage,
  contextFiles,
  recipes,
  selectRecipes,
  workerImage,
} from "../../lib/image/recipes.ts";
import { loggedSteps } from "../../lib/std/log.ts";
import { readSettings } from "../../lib/instance/config.ts";
import { withOwnRepository } from "../../lib/instance/open.ts";

const test = suite("images");

const names = (only?: string) => selectRecipes(only).map(({ name }) => name);

test("selectRecipes() puts the base of an image first", () => {
  assert.equal(names("worker"), ["worker-ultramin", "worker-minimal"]);
  assert.equal(names("parent"), ["parent"]);
  assert.is(names().length, 3);
});

test("selectRecipes() refuses an unknown name, and lists the names", () => {
  assert.throws(() => selectRecipes("x"), /There is no image "x"/);
});

test("buildArguments() uses the repository's image as base", () => {
  const [minimal] = selectRecipes("worker-minimal").slice(-1);
  if (!minimal) throw new Error("no recipe");
  assert.equal(buildArguments(minimal, "r/x", "base:1", { key: "value" }), [
    "--file=Dockerfile.worker-minimal",
    "--build-arg=BASE_IMAGE=base:1",
    "--build-arg=WORKER_IMAGE=r/x:worker-ultramin",
    "--tag=r/x:worker-minimal",
    "--tag=r/x:worker",
    "--tag=r/x:worker-standard",
    "--label=key=value",
  ]);
});

test("contextFiles() are the recipe's own, so no build sends another's 245 MB", () => {
  const [minimal] = selectRecipes("worker-minimal").slice(-1);
  if (!minimal) throw new Error("no recipe");
  assert.equal(contextFiles(minimal), [
    "Dockerfile.worker-minimal",
    "rootfs.sh",
    "gitconfig",
    "ssh-egress.conf",
    "egress-connect.sh",
  ]);
  const sent = recipes.flatMap(contextFiles);
  for (const input of ["claude", "deno", "chromadb", "scripts"]) {
    assert.is(sent.filter((file) => file === `build/${input}`).length, 1);
  }
});

test("imagesBase() has the Debian packages of all Dockerfiles", () => {
  const { packages } = imagesBase(
    fileURLToPath(new URL("../..", import.meta.url)),
  );
  for (const name of ["ca-certificates", "docker-cli", "git", "less"]) {
    assert.is(packages.filter((each) => each === name).length, 1, name);
  }
  assert.equal(debianPackages('FROM x\nARG PACKAGES="a b"\nRUN y'), ["a", "b"]);
  assert.equal(debianPackages("FROM x"), []);
});

test("baseImage() builds in a new directory with an unpredictable name", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-base-test-"));
  const program = (name: string, script: string) =>
    writeFileSync(join(root, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  program("mmdebstrap", 'for tarball; do :; done; : >"$tarball"');
  program("sudo", 'shift; exec "$@"');
  program(
    "docker",
    `[ "$1" = import ] && stat -c '%a %n' "\${2%/*}" >>'${root}/made'`,
  );
  const docker = {
    getImage: () => ({
      inspect: () =>
        existsSync(join(root, "made"))
          ? Promise.resolve({ Id: "x", Size: 1 })
          : Promise.reject(Object.assign(new Error(), { statusCode: 404 })),
    }),
  } as unknown as Docker;
  const { PATH } = process.env;
  try {
    process.env["PATH"] = `${root}:${PATH}`;
    const base = { name: "x", packages: [] };
    const directory = join(root, "in");
    const steps = loggedSteps(() => {});
    await baseImage(docker, base, { arch: "amd64", directory }, steps);
    const [mode, made] = readFileSync(join(root, "made"), "utf8").split(
      " ",
    );
    assert.is(mode, "700");
    assert.match(made ?? "", /\/in\/hal9000-base-\w{6}\n$/);
    assert.equal(readdirSync(join(root, "in")), []);
  } finally {
    process.env["PATH"] = PATH;
    rmSync(root, { recursive: true });
  }
});

test("baseImage() names the other ways if it can be neither pulled nor built", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-base-test-"));
  for (const name of ["mmdebstrap", "docker", "sudo"]) {
    writeFileSync(join(root, name), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
  }
  const missing = Object.assign(new Error(), { statusCode: 404 });
  const docker = {
    getImage: () => ({ inspect: () => Promise.reject(missing) }),
  } as unknown as Docker;
  const { PATH } = process.env;
  try {
    process.env["PATH"] = `${root}:${PATH}`;
    const base = { name: "x", packages: [] };
    const options = { arch: "amd64", directory: root };
    const failure = await baseImage(
      docker,
      base,
      options,
      loggedSteps(() => {}),
    )
      .then(() => assert.unreachable(), (error) => error);
    assert.is(failure.message, "Cannot build x");
    assert.match(failure.hint, "Make debian:trixie-slim available");
    assert.match(failure.hint, "claudy images load FILE");
  } finally {
    process.env["PATH"] = PATH;
    rmSync(root, { recursive: true });
  }
});

test("workerImage() is WORKER_IMAGE, else the repository's image", () => {
  const HAL9000_IMAGE_REPO = "r/x";
  assert.is(workerImage({ HAL9000_IMAGE_REPO, WORKER_IMAGE: "mine" }), "mine");
  assert.is(
    workerImage({ HAL9000_IMAGE_REPO, WORKER_IMAGE: "" }),
    "r/x:worker",
  );
});

const settings = (env: NodeJS.ProcessEnv) =>
  readSettings({ HAL9000_HOME: "/nonexistent", HAL9000_PREFIX: "x", ...env });

test("chosenImage() is workerImage(), unless the parent's repository decides", () => {
  assert.is(chosenImage(settings({})), undefined);
  assert.is(chosenImage(settings({ WORKER_IMAGE: "mine" })), "mine");
  const chosen = settings({ HAL9000_IMAGE_REPO: "r/x" });
  assert.is(chosenImage(chosen), "r/x:worker");
});

test("withOwnRepository() is that of the parent's image, unless one is set", () => {
  const repository = (image: string, env: NodeJS.ProcessEnv = {}) =>
    withOwnRepository(settings(env), image).HAL9000_IMAGE_REPO;
  assert.is(repository("r/x:parent"), "r/x");
  assert.is(repository("r/x:base"), "r/x");
  assert.is(repository("localhost:5000/x:parent"), "localhost:5000/x");
  for (const image of ["0123456789ab", "sha256:0123", "r/x:mine"]) {
    assert.is(repository(image), "x");
  }
  assert.is(repository("r/x:parent", { HAL9000_IMAGE_REPO: "mine" }), "mine");
});

test("orphanedNames() are tags of removed instances, not of registries", () => {
  const image = (...RepoTags: string[]) => ({ RepoTags, Size: 7 });
  const live = ["hal9000", "mine", undefined, "shared"];
  const names = (...tags: string[]) =>
    orphanedNames(image(...tags), live).map(({ name }) => name);
  assert.equal(
    names("mine:worker", "mine-profile:x", "shared:net", "gone:worker"),
    ["gone:worker"],
  );
  assert.equal(names("ghcr.io/hellblazer/hal-9000:net", "r/gone:net"), []);
  assert.equal(names("gone-apt:1234", "gone-worker:python"), [
    "gone-apt:1234",
    "gone-worker:python",
  ]);
  // An image is counted once, and only if all its names are removed.
  const sizes = (...tags: string[]) =>
    orphanedNames(image(...tags), live).map(({ sizeBytes }) => sizeBytes);
  assert.equal(sizes("gone:worker", "gone:worker-minimal"), [0, 7]);
  assert.equal(sizes("gone:worker", "mine:worker"), [0]);
});

test("only what the images contain is sent to the engine", async () => {
  const context = mkdtempSync(join(tmpdir(), "hal9000-docker-"));
  const ignore = new URL("../../docker/.dockerignore", import.meta.url);
  copyFileSync(ignore, join(context, ".dockerignore"));
  const files = recipes.flatMap(({ files }) => files);
  const others = [".env", "id_ed25519", "key.json", "notes/todo.md"];
  for (const name of [...files, "build/claude", ...others]) {
    mkdirSync(dirname(join(context, name)), { recursive: true });
    writeFileSync(join(context, name), "");
  }
  const sent = await contextParts(context);
  for (const name of [...files, "build/claude"]) assert.ok(sent.includes(name));
  for (const name of others) assert.not.ok(sent.includes(name), name);
  rmSync(context, { recursive: true });
});

test("contextParts() excludes ignored files, but includes .dockerignore", async () => {
  const context = mkdtempSync(join(tmpdir(), "hal9000-context-"));
  const lay = (name: string, text: string) => {
    mkdirSync(dirname(join(context, name)), { recursive: true });
    writeFileSync(join(context, name), text);
  };
  const names = async () =>
    (await contextParts(context)).filter((part) => /[A-Z.]|cache/.test(part));
  try {
    for (const name of ["Dockerfile", "cache/a.bin", "cache/kept.txt"]) {
      lay(name, "one");
    }
    const everything = await contextParts(context);
    lay(".dockerignore", "*\n!cache/kept.txt\n");
    assert.equal(await names(), [
      ".dockerignore",
      "Dockerfile",
      "cache/kept.txt",
    ]);
    const before = await contextParts(context);
    lay("cache/a.bin", "two");
    assert.equal(await contextParts(context), before);
    lay("cache/kept.txt", "two");
    assert.is.not(`${await contextParts(context)}`, `${before}`);
    lay("cache/kept.txt", "one");
    lay(".dockerignore", "cache\n");
    assert.equal(await names(), [".dockerignore", "Dockerfile"]);
    assert.is.not(`${everything}`, `${before}`);
  } finally {
    rmSync(context, { recursive: true, force: true });
  }
});

test.run();
