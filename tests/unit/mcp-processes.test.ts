import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  endServerGroups,
  killGroup,
  marked,
  serverGroups,
} from "../../lib/gateway/processes.ts";

const test = suite("mcp-processes");

/** Starts a server's process like the gateway, and waits until it is ready. */
async function started(home: string, command: string, args: string[]) {
  const child = spawn(...marked(home, command, args), {
    detached: true,
    env: { PATH: "/usr/bin:/bin", "odd-name": "kept" },
  });
  const ended = once(child, "exit");
  let text = "";
  child.stdout.on("data", (chunk) => text += chunk);
  while (!text.includes("\n")) await once(child.stdout, "data");
  return { pid: child.pid ?? 0, ended, said: () => text };
}

const deaf = "trap '' TERM; echo ready; while :; do sleep 1; done";

test("kills only the process that ignores EOF and SIGTERM", async () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  const one = await started(home, "sh", ["-c", deaf]);
  const other = await started(`${home}-other`, "sh", ["-c", deaf]);
  // A process that has left the group is ignored, even with inherited variables.
  const daemon = await started(home, "sh", [
    "-c",
    "setsid sleep 20 >&2 & echo $!; wait",
  ]);
  try {
    assert.equal(
      (await serverGroups(home)).sort(),
      [one.pid, daemon.pid].sort(),
    );
    assert.is(await endServerGroups(home), 2);
    assert.equal(await serverGroups(home), []);
    assert.equal((await one.ended)[1], "SIGKILL");
    assert.equal((await daemon.ended)[1], "SIGTERM");
    assert.equal(await serverGroups(`${home}-other`), [other.pid]);
    process.kill(Number(daemon.said()), "SIGTERM");
  } finally {
    for (const { pid } of [one, other]) killGroup(pid, "SIGKILL");
    rmSync(home, { recursive: true });
  }
});

test("a process inherits no listening socket, and only the given environment", async () => {
  const home = mkdtempSync(join(tmpdir(), "hal9000-mcp-"));
  const servers = ["a", "b"].map((name) =>
    createServer().listen(join(home, name))
  );
  await Promise.all(servers.map((server) => once(server, "listening")));
  const listed = await started("/nowhere", "ls", ["/proc/self/fd"]);
  const printed = await started("/nowhere", "env", []);
  await Promise.all([listed.ended, printed.ended]);
  for (const server of servers) server.close();
  rmSync(home, { recursive: true, force: true });
  // The last descriptor is the directory being read.
  assert.is(listed.said(), "0\n1\n2\n3\n");
  assert.match(printed.said(), `HAL9000_MCP_SERVER=/nowhere:${printed.pid}\n`);
  assert.match(printed.said(), "odd-name=kept\n");
});

test.run();
