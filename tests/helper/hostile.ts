// A hostile worker that does everything below at once, for SECONDS. It runs in a session's
// worker, in its project, beside the other programs of this directory. Prints one line for
// each action that worked but should not have.

import { spawn } from "node:child_process";
import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  symlinkSync,
  watch,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createConnection, createServer } from "node:net";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";

const [seconds = 20, ...ports] = process.argv.slice(2).map(Number);
const helpers = dirname(process.argv[1] ?? ".");
const claude = process.env.CLAUDE_CONFIG_DIR ?? join(homedir(), ".claude");
const escapes = "\x1b]52;c;aG9zdGlsZQ==\x07\x1b]0;hostile\x07\x1bP+q544e\x1b\\";
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Tries an action that must fail, and reports it if it works. */
function forbidden(what: string, act: () => void): void {
  try {
    act();
    console.log(`worked: ${what}`);
  } catch { /* as it should be */ }
}

/** Tries an action that is allowed; it may fail if something already exists. */
function attempt(act: () => void): void {
  try {
    act();
  } catch { /* the next one then */ }
}

/** Runs a program of this directory again and again, even if it exits at once. */
async function keepRunning(program: string, ...args: string[]): Promise<never> {
  while (true) {
    const command = ["run", "-A", "--no-lock", "--no-config"];
    command.push(join(helpers, program), ...args);
    const child = spawn(process.execPath, command, {
      stdio: ["ignore", "inherit", "ignore"],
      detached: true,
    });
    await new Promise((resolve) => child.once("close", resolve));
    await pause(200);
  }
}

/** Files that are expensive to read: too many, too large, too deep, links, pipes. */
async function fillHome(): Promise<void> {
  const sparse = openSync(join(claude, "settings.local.json"), "w");
  ftruncateSync(sparse, 3e9);
  closeSync(sparse);
  const projects = join(claude, "projects");
  const conversations = join(projects, "-workspace");
  mkdirSync(conversations, { recursive: true });
  attempt(() => symlinkSync("/etc/passwd", join(conversations, "link.jsonl")));
  attempt(() => symlinkSync("/proc/self/root", join(projects, "root")));
  attempt(() => {
    let deep = join(projects, "deep");
    for (let level = 0; level < 200; level++) deep = join(deep, "d");
    mkdirSync(deep, { recursive: true });
  });
  for (let number = 0; number < 130_000; number++) {
    if (number % 500 === 0) await pause(20);
    attempt(() => writeFileSync(join(conversations, `${number}.jsonl`), ""));
  }
}

/** Makes the project alternately a worktree of itself and of another directory. */
async function swapWorktree(): Promise<never> {
  const admin = ".w/worktrees/x";
  mkdirSync(admin, { recursive: true });
  writeFileSync(join(admin, "gitdir"), "/workspace/.git\n");
  writeFileSync(join(admin, "commondir"), "../..\n");
  writeFileSync(join(admin, "HEAD"), "ref: refs/heads/main\n");
  while (true) {
    attempt(() => writeFileSync(".git", `gitdir: /workspace/${admin}\n`));
    attempt(() => renameSync(admin, `${admin}-away`));
    attempt(() => symlinkSync("../../../../../../etc", admin));
    await pause(3);
    attempt(() => renameSync(admin, `${admin}-link`));
    attempt(() => renameSync(`${admin}-away`, admin));
    await pause(3);
  }
}

/** Writes escape sequences to every terminal and to the log. */
async function writeEscapes(): Promise<never> {
  const places = () =>
    readdirSync("/dev/pts").map((name) => `/dev/pts/${name}`);
  while (true) {
    for (const place of [...places(), "/proc/1/fd/1", "/proc/1/fd/2"]) {
      attempt(() => {
        const file = openSync(place, "a");
        writeSync(file, escapes);
        closeSync(file);
      });
    }
    await pause(200);
  }
}

/** Replaces programs that others may run in this container; they lie and never end. */
function layPrograms(): void {
  const names = ["cat", "ps", "ss", "ls", "id", "git", "claude", "stty", "env"];
  for (const directory of ["/usr/local/bin", join(homedir(), ".local/bin")]) {
    attempt(() => mkdirSync(directory, { recursive: true }));
    for (const name of names) {
      attempt(() =>
        writeFileSync(
          join(directory, name),
          `#!/bin/bash\nprintf '${escapes}'\nexec sleep 1000\n`,
          { mode: 0o755 },
        )
      );
    }
  }
}

/** Connections with large requests, and connections that stay silent. */
async function floodPort(port: number): Promise<never> {
  const request = "POST /mcp HTTP/1.1\r\nHost: localhost\r\n" +
    "Content-Type: application/json\r\nContent-Length: 90000000\r\n\r\n";
  let open = 0;
  while (true) {
    if (open < 200) {
      open++;
      const socket = createConnection(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.on("close", () => open--);
      socket.write(open % 2 ? request + "[".repeat(100_000) : "GET /");
    }
    await pause(20);
  }
}

/** Attacks files and ports that the namespace and the host share. */
async function takeWhatIsShared(): Promise<never> {
  while (true) {
    for (const file of ["hosts", "resolv.conf", "hostname"]) {
      forbidden(`write /etc/${file}`, () => {
        appendFileSync(`/etc/${file}`, "6.6.6.6 api.anthropic.com\n");
      });
    }
    for (const port of [8000, ...ports]) {
      const server = createServer((client) =>
        client.end("HTTP/1.1 200 OK\r\n\r\n{}")
      );
      server.on("error", () => {});
      server.listen(
        port,
        "127.0.0.1",
        () => console.log(`worked: port ${port}`),
      );
    }
    attempt(() => {
      // Abstract sockets have no file: they are visible to all workers.
      createServer().on("error", () => {}).listen("\0hal9000");
    });
    await pause(50);
  }
}

attempt(layPrograms);
attempt(() => {
  for (let count = 0; count < 128; count++) watch("/workspace", () => {});
});
const parts = [
  fillHome(),
  swapWorktree(),
  writeEscapes(),
  takeWhatIsShared(),
  keepRunning("chroma-flood.ts", "20"),
  // Only one half: with all ports taken, no worker can open a connection, as documented
  // in SECURITY.md; hostile-services.bats tests that.
  keepRunning("port-hog.ts", "0"),
  keepRunning("set-uid.ts", "/workspace"),
  ...ports.map(floodPort),
];
for (const part of parts) part.catch((error) => console.log(String(error)));
for (let burner = 0; burner < 20; burner++) {
  spawn("bash", ["-c", "trap '' TERM HUP INT; while :; do (:); done"], {
    stdio: "ignore",
    detached: true,
  }).unref();
}
console.log("begun");
await pause(seconds * 1000);
console.log("done");
