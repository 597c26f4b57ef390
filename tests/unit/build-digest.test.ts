import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bundleScripts } from "../../lib/machine/bundle.ts";
import { checkout } from "../../lib/std/checkout.ts";
import { sourceDigest } from "../../lib/std/build-digest.ts";

test("sourceDigest() depends on the sources, not on their location", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-digest-"));
  const one = join(root, "one");
  for (const name of ["docker/build", "lib/inner", "scripts"]) {
    mkdirSync(join(one, name), { recursive: true });
  }
  for (const name of ["package.json", "package-lock.json", "lib/inner/a.ts"]) {
    writeFileSync(join(one, name), name);
  }
  const two = join(root, "two");
  const staged = join(two, "docker/build/claude.js");
  cpSync(one, two, { recursive: true });
  assert.match(sourceDigest(one), /^[0-9a-f]{8}$/);
  writeFileSync(staged, "built from the sources");
  symlinkSync("gone", join(two, "docker/link.sh"));
  assert.is(sourceDigest(one), sourceDigest(two));
  writeFileSync(join(two, "lib/inner/a.ts"), "other");
  assert.is.not(sourceDigest(one), sourceDigest(two));
  rmSync(root, { recursive: true });
});

test("a bundle does not depend on the working directory", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-bundle-"));
  const own = process.cwd();
  const bundled = async (cwd: string, name: string) => {
    process.chdir(cwd);
    try {
      // It uses the engine's API.
      const source = join(checkout, "lib/parent/healthcheck.ts");
      await bundleScripts(checkout, [source], join(root, name));
    } finally {
      process.chdir(own);
    }
    return readFileSync(join(root, name, "healthcheck.js"), "utf8");
  };
  const text = await bundled(checkout, "one");
  assert.match(text, "dockerode");
  assert.ok(text === await bundled(root, "two"));
  rmSync(root, { recursive: true });
});

test("a bundled call of the engine's API does not describe the request", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-bundle-"));
  const server = createServer((_, response) => response.end("OK"));
  const socket = join(root, "engine.sock");
  await once(server.listen(socket), "listening");
  const entry = join(root, "call.ts");
  writeFileSync(
    entry,
    `import Dockerode from "${checkout}/node_modules/dockerode/lib/docker.js";
    import { inspect } from "node:util";
    let described = 0;
    const headers = { [inspect.custom]: () => described++ };
    const docker = new Dockerode({ socketPath: ${
      JSON.stringify(socket)
    }, headers });
    export const answer = String(await docker.ping());
    export const count = described;`,
  );
  await bundleScripts(checkout, [entry], join(root, "bundled"));
  const called = await import(join(root, "bundled", "call.js"));
  server.close();
  assert.is(called.answer, "OK");
  assert.is(called.count, 0);
  rmSync(root, { recursive: true });
});

test.run();
