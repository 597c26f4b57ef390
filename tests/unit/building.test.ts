// Building images, with a docker command that only records its arguments, and a fake
// engine.

import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { runBuild } from "../../lib/image/build.ts";
import { runHardened } from "../../lib/image/profile-build.ts";
import {
  listProfiles,
  profileImage,
  readyImage,
} from "../../lib/image/profiles.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  directory: string;
  /** The recorded arguments of the docker command, one call per line. */
  asked: () => string[];
  path: string | undefined;
}

const test = suite<Context>("building");

/** The id of each image that the client builds. */
const builtId = "new";

const client = `#!/bin/sh
echo "$DOCKER_BUILDKIT|$*" | sed 's/ --iidfile=[^ ]*//' >>"$(dirname "$0")/asked"
for word; do
  case $word in --iidfile=*) echo ${builtId} >"\${word#*=}" ;; esac
done
case $1 in
  buildx) [ ! -e "$(dirname "$0")/no-buildx" ] ;;
  *) seq -f 'step %g' 30; [ ! -e "$(dirname "$0")/fails" ] ;;
esac`;

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const directory = mkdtempSync(join(tmpdir(), "hal9000-client-"));
  context.directory = directory;
  context.path = process.env["PATH"];
  writeFileSync(join(directory, "docker"), client);
  chmodSync(join(directory, "docker"), 0o755);
  process.env["PATH"] = `${directory}:${context.path}`;
  context.asked = () => {
    const path = join(directory, "asked");
    if (!existsSync(path)) return [];
    return readFileSync(path, "utf8").trim().split("\n");
  };
});

test.after.each(({ end, directory, path }) => {
  process.env["PATH"] = path ?? "";
  rmSync(directory, { recursive: true });
  end();
});

const build = ({ instance, directory, log }: Context, args: string[]) =>
  runBuild(
    instance.docker,
    { directory },
    args,
    join(directory, "logs/build.log"),
    log,
  );

test("builds images with BuildKit if both the client and the engine have it", async (context) => {
  const { asked, engine } = context;
  await build(context, ["--tag=x"]);
  assert.equal(asked(), ["|buildx version", "|build --tag=x ."]);
  engine.builder = "1";
  await build(context, ["--tag=x"]);
  assert.is(asked()[3], "0|build --force-rm --tag=x .");
});

test("sends only the chosen files of the context", async (context) => {
  const { directory, asked, instance: { docker } } = context;
  writeFileSync(
    join(directory, "docker"),
    client.replace("*) seq", `build) tar -t >"${directory}/sent" ;;\n  *) seq`),
  );
  for (const name of ["one", "two"]) writeFileSync(join(directory, name), "");
  const files = ["two"];
  const log = join(directory, "log");
  await runBuild(docker, { directory, files }, [], log, () => {});
  assert.is(asked()[1], "|build -");
  assert.is(readFileSync(join(directory, "sent"), "utf8"), "two\n");
  // A missing file is an error, although docker succeeds.
  const missing = runBuild(
    docker,
    { directory, files: ["three"] },
    [],
    log,
    () => {},
  );
  assert.is(await missing.then(() => "", ({ kind }) => kind), "failed");
});

test("without buildx, the classic builder removes the container of a failed step", async (context) => {
  const { directory, asked } = context;
  writeFileSync(join(directory, "no-buildx"), "");
  await build(context, ["--tag=x"]);
  assert.is(asked()[1], "0|build --force-rm --tag=x .");
});

test("a build prints nothing; a failed one its last lines, and where its log is", async (context) => {
  const { directory, told } = context;
  assert.is(await build(context, []), builtId);
  assert.equal(told, []);
  writeFileSync(join(directory, "fails"), "");
  const failure = await build(context, []).catch((error) => error);
  assert.is(failure.kind, "failed");
  assert.is(failure.hint, `The whole log: ${directory}/logs/build.log`);
  assert.equal(told, Array.from({ length: 20 }, (_, at) => `step ${at + 11}`));
});

test("an image or a build that prints too much is cut", async (context) => {
  const { directory, instance, told, log } = context;
  const docker = (lines: string) =>
    writeFileSync(join(directory, "docker"), `#!/bin/sh\n${lines}\nexit 7\n`);
  docker("echo first >&2; head -c 3000000 /dev/zero | tr '\\0' x");
  const settings = { ...instance.settings, WORKER_SECCOMP: "engine" as const };
  const { exitCode, output } = await runHardened(
    { ...instance, settings },
    "x",
    "",
    log,
  );
  assert.is(exitCode, 7);
  assert.match(output, /^first\nx+$/);
  assert.is(output.length, 64 * 1024);
  docker("[ $1 = buildx ] || head -c 3000000 /dev/zero | tr '\\0' x");
  await build(context, []).catch(() => {});
  assert.ok(told.join("").length < 20_000);
});

const ready = (
  { instance, log }: Context,
  name: string,
  { build = false, packages = [] as string[] } = {},
) =>
  readyImage(
    instance,
    { name, packages },
    { build },
    log,
  );

test("uses the plain worker image unchanged", async (context) => {
  assert.equal(await ready(context, "base"), { name: "repo:worker" });
  assert.equal(context.told, []);
});

test("falls back to the plain worker image with a warning if a profile is not built", async (context) => {
  assert.equal(await ready(context, "python"), { name: "repo:worker" });
  assert.match(
    context.told[0] ?? "",
    /^warning: repo:worker-python is not built; using repo:worker\./,
  );
});

test("says how long the build of a profile takes", async (context) => {
  context.engine.images.set("repo:worker", { Id: "w" });
  await ready(context, "python", { build: true }).catch(() => {});
  assert.is(
    context.told[0],
    "Building repo:worker-debian. This can take a minute; later starts use the image.",
  );
});

test("uses a built profile without a message", async (context) => {
  context.engine.images.set("repo:worker-python", { Id: "p" });
  assert.equal(await ready(context, "python"), {
    name: "repo:worker-python",
    id: "p",
  });
  assert.equal(context.told, []);
  // Without the additional packages, because no image contains them.
  const { name } = await ready(context, "python", { packages: ["jq"] });
  assert.is(name, "repo:worker-python");
  assert.match(context.told[0] ?? "", /fake-apt:\w+ is not built; using repo/);
});

test("the order of packages does not change the image", ({ instance }) => {
  const image = (...packages: string[]) =>
    profileImage(instance, { name: "base", packages });
  assert.is(image("a", "b"), image("b", "a", "a"));
  assert.is.not(image("a"), image("a", "b"));
});

test("a user's profile has an image specific to the instance", (context) => {
  const { instance } = context;
  mkdirSync(instance.home.profile("mine"), { recursive: true });
  writeFileSync(join(instance.home.profile("mine"), "Dockerfile"), "FROM x");
  const own = { name: "mine", packages: [] };
  assert.is(profileImage(instance, own), "fake-profile:mine");
  const settings = { ...instance.settings, WORKER_IMAGE: "own" };
  const python = { name: "python", packages: [] };
  assert.is(
    profileImage({ ...instance, settings }, python),
    "fake-worker:python",
  );
});

test("listProfiles() has the image's size and whether workers are kept warm", async (context) => {
  const { instance, engine } = context;
  mkdirSync(instance.home.profile("mine"), { recursive: true });
  writeFileSync(join(instance.home.profile("mine"), "Dockerfile"), "FROM x");
  engine.images.set("repo:worker-python", { Id: "p", Size: 7 });
  const profiles = await listProfiles(instance);
  assert.equal(
    profiles.map(({ name, own, warm }) => [name, own, warm]),
    [
      ["base", false, true],
      ["python", false, false],
      ["node", false, false],
      ["java", false, false],
      ["mine", true, false],
    ],
  );
  const python = profiles.find(({ name }) => name === "python");
  assert.is(python?.sizeBytes, 7);
  assert.is(profiles.at(-1)?.sizeBytes, null);
});

test("a profile cannot be built without its base image", async (context) => {
  const { engine } = context;
  engine.images.delete("repo:worker");
  const failure = await ready(context, "python", { build: true })
    .then(() => ({ message: "" }), (error: Error) => error);
  assert.is(failure.message, "There is no image repo:worker");
  assert.equal(context.asked(), []);
});

/** Adds the built image to the engine, which does not list it. */
function built({ engine, instance }: Context): void {
  engine.images.set("debian:trixie-slim", { Id: "debian" });
  const image = { Size: 10, RepoTags: [], Config: {} };
  engine.images.set(builtId, { ...image, Id: builtId });
  engine.images.set("former", { ...image, Id: "former" });
  instance.docker.listImages = () => Promise.resolve([]);
}

test("tags a profile after its smoke test has passed, and removes the former image", async (context) => {
  const { engine, asked } = context;
  built(context);
  engine.images.set("repo:worker-python", { Id: "former", Config: {} });
  const image = await ready(context, "python", { build: true });
  assert.equal(image, { name: "repo:worker-python", id: "new" });
  assert.is(
    (engine.images.get("repo:worker-python") as { Id: string }).Id,
    "new",
  );
  assert.equal(engine.asked, ["rmi former"]);
  const commands = asked().map((line) => line.split("|")[1]?.split(" ")[0]);
  // The debian layer, and the python layer on it.
  const each = ["buildx", "build", "run"];
  assert.equal(commands, [...each, ...each]);
  const [smoke = ""] = asked().filter((line) => line.startsWith("|run"));
  for (const word of ["--rm", "--network=none", "--cap-drop=ALL"]) {
    assert.ok(smoke.includes(word), word);
  }
});

test("does not tag a profile if its smoke test fails, and keeps the former image", async (context) => {
  const { engine, directory } = context;
  built(context);
  engine.images.set("repo:worker-python", { Id: "former", Config: {} });
  writeFileSync(
    join(directory, "docker"),
    client.replace("*) seq", "run) echo no claude; exit 1 ;;\n  *) seq"),
  );
  const failure = await ready(context, "python", { build: true })
    .then(() => ({}), (error) => error) as { message: string; hint: string };
  assert.is(
    failure.message,
    "Cannot build repo:worker-debian: " +
      "Its smoke test failed with exit code 1: no claude",
  );
  assert.match(failure.hint, "--no-build");
  assert.equal(engine.asked, []);
  assert.is(
    (engine.images.get("repo:worker-python") as { Id: string }).Id,
    "former",
  );
});

test.run();
