// Copies of trees that change meanwhile, made with the programs of this machine.

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createInterface } from "node:readline";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Host, hostWithoutFreeze } from "../../lib/workspace/git/host.ts";
import { writtenBy } from "../../lib/std/proc.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { showPercent } from "../../lib/workspace/git/progress.ts";
import { copyLive } from "../../lib/workspace/git/live-copy.ts";

interface Context {
  root: string;
  tree: string;
  target: string;
}

const test = suite<Context>("live-copy");

test.before.each((context) => {
  // In memory, where a sync does not wait for the disk.
  const parent = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const root = mkdtempSync(join(parent, "hal9000-live-copy-"));
  Object.assign(context, {
    root,
    tree: join(root, "tree"),
    target: join(root, "target"),
  });
  mkdirSync(context.tree);
});
test.after.each(({ root }) => {
  execFileSync("chmod", ["-R", "u+rwX", root]);
  rmSync(root, { recursive: true, force: true });
});

function shell(cwd: string, script: string): string {
  return execFileSync("bash", ["-euc", script], {
    cwd,
    encoding: "latin1",
    maxBuffer: 64 * 1024 ** 2,
  });
}

/** All of a tree but the times of its directories. */
function contents(tree: string): string {
  return shell(
    tree,
    "find . -printf '%p %y %m %l ' '(' -type d -printf '\\0' -o -printf '%s %T@ %n\\0' ')' | sort -z | tr '\\0' '\\n'" +
      "; find . -type f -print0 | sort -z | xargs -0 -r sha256sum --",
  );
}

/** Calls `before` when the worker is to stand still, and compares what was copied then. */
async function copied(
  { tree, target }: Context,
  before: () => void = () => {},
  minLimitMs?: number,
): Promise<void> {
  let then = "";
  const host: Host = {
    log: () => {},
    whileFrozen: async (act) => {
      before();
      then = contents(tree);
      return await act();
    },
  };
  await copyLive(tree, target, true, host, minLimitMs);
  assert.is(contents(target), then);
}

test("copies what was changed in the meantime, also with its times set back", async (context) => {
  const { tree } = context;
  shell(
    tree,
    `mkdir -p same gone deep/er closed/in opened was-link-target swap
    for name in same/a same/b gone/x deep/er/y closed/f closed/in/g closed/h closed/i opened/j kept; do echo "$name" >"$name"; done
    echo old >set-back
    ln kept linked; ln -s was-link-target link; mkfifo pipe
    echo one >$'name\\nwith\\xff\\x01'; chmod 0555 closed closed/in opened`,
  );
  const { atime, mtime } = statSync(join(tree, "set-back"));
  await copied(context, () => {
    writeFileSync(join(tree, "set-back"), "new\n");
    utimesSync(join(tree, "set-back"), atime, mtime);
    shell(
      tree,
      `rm -r gone; rm link; mkdir link; echo in >link/file
      rm pipe; echo file >pipe; rm same/a; mkfifo same/a; rm same/b; ln -s /etc same/b
      mv deep/er deep/other; mkdir deep/er; echo new >deep/er/y
      chmod u+w closed closed/in; echo changed >closed/f; echo changed >closed/i; chmod 0755 opened; echo changed >opened/j; rm closed/h; echo changed >closed/in/g
      chmod 0555 closed closed/in; rm linked; echo alone >linked; chmod 0600 kept; chmod 0700 swap
      echo more >$'name\\nwith\\xff\\x02'; rm $'name\\nwith\\xff\\x01'
      mkdir -p made/by/now; echo x >made/by/now/x; ln made/by/now/x made/again; chmod 0711 .`,
    );
  });
});

test("copies a tree that nothing changes at once", async (context) => {
  const { tree, target } = context;
  shell(tree, "mkdir a; echo x >a/x; chmod 0500 a; ln -s nowhere .link");
  await copyLive(tree, target, false, hostWithoutFreeze(() => {}));
  assert.is(contents(target), contents(tree));
});

test("takes one moment of a tree that programs change without rest", async (context) => {
  const { tree } = context;
  shell(
    tree,
    "for d in 0 1 2 3; do mkdir $d; for f in {0..40}; do echo $f >$d/$f; done; done",
  );
  const worker = spawn("bash", [
    "-c",
    `while :; do n=$((RANDOM % 40)) d=$((RANDOM % 4)); case $((RANDOM % 9)) in
      0) echo "$RANDOM" >$d/$n ;; 1) rm -rf $d/$n ;; 2) rm -rf $d/$n; mkdir $d/$n && echo x >$d/$n/x ;;
      3) rm -rf $d/$n; ln -s /etc $d/$n ;; 4) rm -rf $d/$n; mkfifo $d/$n ;; 5) mv $d 9; ln -s /etc $d; rm $d; mv 9 $d ;;
      6) mv -T $d/$n $d/x$n ;; 7) touch -d @1 $d/$n ;; 8) [ -p $d/$n ] || ln -f $d/$n $d/y$n ;; esac; done 2>/dev/null`,
  ], { cwd: tree, detached: true, stdio: "ignore" });
  const signal = (name: NodeJS.Signals) =>
    process.kill(-(worker.pid ?? 0), name);
  try {
    for (let turn = 0; turn < 5; turn++) {
      signal("SIGCONT");
      await copied(context, () => signal("SIGSTOP"));
      shell(context.target, "chmod -R u+rwX . && rm -rf ../target");
    }
  } finally {
    signal("SIGKILL");
    await once(worker, "close");
  }
});

/** As copied(), but until the worker stands still, `script` runs in place of cp. */
async function copiedBy(
  context: Context,
  script: string,
  minLimitMs?: number,
): Promise<void> {
  const { root } = context;
  const bin = join(root, "bin");
  mkdirSync(bin);
  const text = `#!/bin/sh
PATH=\${PATH#*:}
[ -e "${root}/still" ] && exec cp "$@"
${script}
`;
  writeFileSync(join(bin, "cp"), text, { mode: 0o755 });
  const { PATH } = process.env;
  process.env["PATH"] = `${bin}:${PATH}`;
  try {
    const still = () => writeFileSync(join(root, "still"), "");
    await copied(context, still, minLimitMs);
  } finally {
    process.env["PATH"] = PATH;
  }
}

test("goes on if a file has no end as long as the worker runs", async (context) => {
  shell(context.tree, "mkdir d; echo x >d/x");
  const begun = Date.now();
  // In place of one that grows as fast as cp reads it.
  await copiedBy(context, "sleep 20", 200);
  assert.ok(Date.now() - begun < 15_000);
});

test("keeps hard links to a file whose other name was missed before", async (context) => {
  const { tree, target } = context;
  shell(
    tree,
    "mkdir d e; echo x >d/a; ln d/a d/b; ln d/a e/c; ln -s a d/l; ln d/l d/m",
  );
  await copiedBy(context, `cp "$@"; rm -f ${target}/d/b ${target}/d/m`);
});

test("fails if something cannot be read", async (context) => {
  shell(context.tree, "echo x >x; chmod 0 x");
  const { program, text } = start(
    context,
    // Else root reads everything.
    ...(process.getuid?.() === 0
      ? ["setpriv", `--bounding-set=${rights}`, `--inh-caps=${rights}`]
      : []),
  );
  await once(program, "close");
  assert.match(text(), /"failure"[^]*Permission denied/);
});

const rights = "-dac_override,-dac_read_search";

test("measures what programs write that a program has started", async ({ root }) => {
  const child = spawn("bash", [
    "-c",
    "bash -c 'head -c 5000000 /dev/zero >x; echo; exec sleep 60' & wait",
  ], { cwd: root, detached: true, stdio: ["ignore", "pipe", "ignore"] });
  try {
    await once(child.stdout, "data");
    assert.ok(writtenBy(child.pid ?? 0) >= 5_000_000);
  } finally {
    process.kill(-(child.pid ?? 0), "SIGKILL");
  }
});

test("shows on a terminal the percents that git prints", () => {
  const shown: string[] = [];
  const log = Object.assign(() => {}, {
    progress: (text: string) => void shown.push(text),
  });
  const show = showPercent(log, "Checking out the files");
  show("Updating files:   7% (4/50)\rUpdating files:");
  show("Switched to branch\n");
  assert.equal(shown, ["Checking out the files: 7 %"]);
});

/** Runs the program as a process, by words before it; its worker is never running. */
function start({ tree, target }: Context, ...words: string[]) {
  const [file = "", ...rest] = [
    ...words,
    process.execPath,
    ...("Deno" in globalThis ? ["run", "--allow-all", "--no-lock"] : []),
    join(import.meta.dirname ?? "", "../../lib/workspace/git/workspace.ts"),
  ];
  const program = spawn(file, rest, {
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
  const work = { do: "fork", tree, target, branch: "claudy/f", live: true };
  program.stdin.write(`${JSON.stringify({ work, checks: [] })}\n`);
  program.stdin.on("error", () => {});
  createInterface({ input: program.stderr }).on("line", (line) => {
    if (line.includes("freeze")) program.stdin.write("frozen\n");
  });
  let text = "";
  program.stdout.on("data", (chunk) => text += String(chunk));
  return { program, text: () => text };
}

/** Kills the program when `isTime`, as the end of its container does; whether it was in time. */
async function killed(
  context: Context,
  isTime: () => boolean,
): Promise<boolean> {
  const { program, text } = start(context);
  const pid = program.pid ?? 0;
  const clock = setInterval(() => {
    if (!isTime()) return;
    clearInterval(clock);
    // cp has a group of its own.
    for (const group of [pid, ...childrenOf(pid)]) {
      try {
        process.kill(-group, "SIGKILL");
      } catch {
        // It has just ended, or is of the program's group.
      }
    }
  }, 1);
  const [code] = await once(program, "close");
  clearInterval(clock);
  const isOver = () =>
    spawnSync("pgrep", ["-f", "--", `-t ${context.target}`]).status === 1;
  await waitFor(isOver, { for: "the end of cp", timeoutMs: 5000 });
  if (code !== null) assert.match(text(), '"result"');
  return code === null;
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8")
        .split(" ").filter(Boolean).map(Number)
    );
  } catch {
    return []; // It has just ended.
  }
}

test("what a kill at any moment leaves of a copy shares nothing with the session's files", async (context) => {
  const { root, tree, target } = context;
  shell(
    tree,
    "mkdir -p .git d; echo ref: refs/heads/x >.git/HEAD; for f in {1..1000}; do echo $f >d/$f; done",
  );
  const before = contents(tree);
  const copiedFiles = () =>
    existsSync(join(target, "d")) ? readdirSync(join(target, "d")).length : 0;
  const begun = Date.now();
  assert.not(await killed(context, () => false));
  const takesMs = Date.now() - begun;
  let partial = 0;
  const after = (part: number) => {
    const at = Date.now() + takesMs * part;
    return () => Date.now() >= at;
  };
  const times = [0.4, 0.6, 0.75, 0.9].map((part) => () => after(part));
  const first = () => () => copiedFiles() > 0;
  for (const time of [...times, first, first, first]) {
    rmSync(target, { recursive: true, force: true });
    await killed(context, time());
    const files = copiedFiles();
    if (files > 0 && files < 1000) partial++;
    if (existsSync(target)) {
      shell(target, "find . -type f -print0 | xargs -0 -r truncate -s 0");
    }
    assert.is(contents(tree), before);
    const others = ["now", "share.from", "share.to"];
    assert.equal(
      readdirSync(root).filter((name) => !others.includes(name)).sort(),
      existsSync(target) ? ["target", "tree"] : ["tree"],
    );
    for (const name of others) rmSync(join(root, name), { force: true });
  }
  assert.ok(partial > 0);
  rmSync(target, { recursive: true, force: true });
  assert.not(await killed(context, () => false));
  assert.is(readFileSync(join(target, "d/7"), "utf8"), "7\n");
  assert.equal(readdirSync(root).sort(), ["target", "tree"]);
});

declare const Deno: {
  dlopen(
    file: string,
    symbols: Record<string, unknown>,
  ): { symbols: Record<string, (...args: unknown[]) => unknown> };
};

/** Maps the first page of a file; returns what fills it. */
function mapPage(path: string): (character: string) => void {
  const { open, mmap, memset } = Deno.dlopen("libc.so.6", {
    open: { parameters: ["buffer", "i32"], result: "i32" },
    mmap: {
      parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"],
      result: "pointer",
    },
    memset: { parameters: ["pointer", "i32", "usize"], result: "pointer" },
  }).symbols;
  const file = open?.(new TextEncoder().encode(`${path}\0`), 2); // O_RDWR
  const page = mmap?.(null, 4096, 3, 1, file, 0); // to read and write, MAP_SHARED
  return (character) => void memset?.(page, character.charCodeAt(0), 4096);
}

const tmpfs = 0x01021994;
const onDisk = [tmpdir(), "/var/tmp"].find((path) =>
  existsSync(path) && statfsSync(path).type !== tmpfs
);

// A file system in memory sets no ctime for a mapped page, see ADR 46.
(onDisk === undefined ? test.skip : test)(
  "takes what a process changes in a file that it has mapped",
  async () => {
    const root = mkdtempSync(join(onDisk ?? "", "hal9000-live-copy-"));
    const tree = join(root, "tree");
    mkdirSync(tree);
    writeFileSync(join(tree, "page"), "a".repeat(4096));
    const fill = mapPage(join(tree, "page"));
    fill("b");
    let turn = 0;
    const writer = setInterval(() => fill(String(turn++ % 10)), 5);
    try {
      // Its ctime is older than what is copied.
      await waitFor(() => turn > 20, { for: "the writer", timeoutMs: 5000 });
      await copied({ root, tree, target: join(root, "target") }, () => {
        clearInterval(writer);
        fill("c");
      });
    } finally {
      clearInterval(writer);
      rmSync(root, { recursive: true });
    }
  },
);

test.run();
