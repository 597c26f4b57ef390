// What runs on the host without a /proc, as on macOS: in a mount namespace that hides it.

import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkout } from "../../lib/std/checkout.ts";

const test = suite<{ root: string }>("proc");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-proc-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

const program = `
import { inDirectory } from "${checkout}/lib/std/directory.ts";
import { lookAt } from "${checkout}/lib/std/hostpath.ts";
import { hasEnded, processMark } from "${checkout}/lib/std/process-mark.ts";
import { mountPointsBelow } from "${checkout}/lib/instance/storage.ts";
import { refuseWriters } from "${checkout}/lib/migration/checks.ts";
import { measureTrees, removeTree } from "${checkout}/lib/std/remove-tree.ts";
import { serverGroups } from "${checkout}/lib/gateway/processes.ts";
const root = Deno.env.get("ROOT");
const entries = inDirectory(root, (opened) =>
  [...opened.entries()].sort((a, b) => a.name.localeCompare(b.name)).map((entry) => ({
    ...entry,
    size: opened.stat(entry.name)?.sizeBytes && entry.kind === "file",
  })));
refuseWriters([root]);
console.log(JSON.stringify({
  entries,
  found: lookAt(root + "/link", { mount: "", roots: undefined }),
  mark: processMark(),
  ended: hasEnded("4026531836.1.5"),
  mounts: mountPointsBelow(root),
  groups: await serverGroups(root),
  sizes: [...await measureTrees([root + "/app"])].map(([, size]) => size >= 5000),
  removed: await removeTree(root + "/app") === undefined,
}));
`;

test("directories, paths, processes and mounts are read without a /proc", ({ root }) => {
  mkdirSync(join(root, "app"));
  writeFileSync(join(root, "file"), "x");
  writeFileSync(join(root, "app", "file"), "x".repeat(5000));
  // As BSD has them.
  mkdirSync(join(root, "bin"));
  const rm = `#!/bin/sh\n[ "$1 $2" = "-rf -x" ] && exec /bin/rm -rf -- "$4"\n`;
  writeFileSync(join(root, "bin", "rm"), rm, { mode: 0o755 });
  spawnSync("ln", ["-s", join(root, "app"), join(root, "link")]);
  // Deno on Linux needs its own path.
  const hide = "mount -t tmpfs none /proc && mkdir /proc/self && " +
    'ln -s "$0" /proc/self/exe && exec "$0" "$@"';
  const run = ["eval", "--no-lock", "--quiet", program];
  const rights = process.getuid?.() === 0 ? [] : ["--user", "--map-root-user"];
  const { stdout, stderr, status } = spawnSync("unshare", [
    ...[...rights, "--mount", "sh", "-c", hide],
    ...[process.execPath, ...run],
  ], {
    encoding: "utf8",
    cwd: checkout,
    env: {
      ...process.env,
      ROOT: root,
      PATH: `${root}/bin:${process.env["PATH"]}`,
    },
  });
  // Not every machine lets a user do this.
  if (status !== 0 && /^(unshare|mount):/m.test(stderr)) return;
  assert.is(stderr, "");
  const { found, ...read } = JSON.parse(stdout);
  assert.equal(read, {
    entries: [
      { name: "app", kind: "directory", size: false },
      { name: "bin", kind: "directory", size: false },
      { name: "file", kind: "file", size: true },
      { name: "link", kind: "other", size: false },
    ],
    mark: "",
    ended: false,
    mounts: [],
    groups: [],
    sizes: [true],
    removed: true,
  });
  assert.equal([found.path, found.kind], [join(root, "app"), "directory"]);
  assert.not(existsSync(join(root, "app")));
});

test.run();
