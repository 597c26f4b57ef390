import { suite } from "uvu";
import * as assert from "uvu/assert";
import { buildArguments } from "../../lib/images/build.ts";
import { selectRecipes, workerImage } from "../../lib/images/recipes.ts";

const test = suite("images");

const names = (only?: string) => selectRecipes(only).map(({ name }) => name);

test("selectRecipes() brings what an image is built on, first", () => {
  assert.equal(names("worker"), ["worker-ultramin", "worker-minimal"]);
  assert.equal(names("net"), ["net"]);
  assert.is(names().length, 4);
});

test("selectRecipes() refuses a name that is none, and tells them", () => {
  assert.throws(() => selectRecipes("x"), /There is no image "x"/);
});

test("buildArguments() builds on the repository's own image", () => {
  const [minimal] = selectRecipes("worker-minimal").slice(-1);
  if (!minimal) throw new Error("no recipe");
  assert.equal(buildArguments(minimal, "r/x", "base:1", { key: "value" }), [
    "--file=docker/Dockerfile.worker-minimal",
    "--build-arg=BASE_IMAGE=base:1",
    "--build-arg=WORKER_IMAGE=r/x:worker-ultramin",
    "--tag=r/x:worker-minimal",
    "--tag=r/x:worker",
    "--tag=r/x:worker-standard",
    "--label=key=value",
  ]);
});

test("workerImage() is WORKER_IMAGE, else the repository's", () => {
  const HAL9000_IMAGE_REPO = "r/x";
  assert.is(workerImage({ HAL9000_IMAGE_REPO, WORKER_IMAGE: "mine" }), "mine");
  assert.is(
    workerImage({ HAL9000_IMAGE_REPO, WORKER_IMAGE: "" }),
    "r/x:worker",
  );
});

test.run();
