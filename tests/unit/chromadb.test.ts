import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { readSettings } from "../../lib/instance/config.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  chromadbAnswers,
  chromadbChild,
  chromadbFault,
  listenerFault,
} from "../../lib/parent/chromadb.ts";
import { listenerUsers } from "../../lib/std/socket-table.ts";

const test = suite("chromadb");

const table =
  `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65430        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   3: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4714 1 0 100 0 0 10 0
   2: 00000000:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
`;

test("listenerUsers() returns the uids of loopback listeners at a port", () => {
  assert.equal(listenerUsers(table, 8000), [65430, 1000]);
});

test("listenerUsers() ignores connections and other addresses", () => {
  assert.equal(listenerUsers(table, 8001), []);
  assert.equal(listenerUsers(table, 8002), []);
  assert.equal(listenerUsers(table, 9), []);
});

test("ChromaDB runs as a user of its own and listens only on loopback", () => {
  const child = chromadbChild(8001, "/logs/chromadb.log");
  const command = child.command.join(" ");
  assert.match(
    command,
    "run --path /data/chromadb --host 127.0.0.1 --port 8001",
  );
  assert.match(command, "oom_score_adj");
  const { uid, gid } = child.user ?? { uid: 0, gid: 0 };
  assert.ok(uid > 0 && uid === gid);
  assert.is(child.env?.["ANONYMIZED_TELEMETRY"], "False");
  assert.is(child.logFile, "/logs/chromadb.log");
  assert.is(child.name, "chromadb");
});

test("ChromaDB is up if its heartbeat answers; a closed port is not an error", async () => {
  let status = 200;
  const server = createServer((request, response) => {
    const known = request.url === "/api/v2/heartbeat";
    response.writeHead(known ? status : 404).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  assert.is(await chromadbAnswers(port), true);
  status = 500;
  assert.is(await chromadbAnswers(port), false);
  server.close();
  await once(server, "close");
  assert.is(await chromadbAnswers(port), false);
});

test("ignores a ChromaDB that does not listen or belongs to another user", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const fault = (checkListeners = listenerFault) =>
    chromadbFault({
      home: homePaths("/nonexistent"),
      settings: readSettings({
        CHROMADB_PORT: String(port),
        HOME: "/nonexistent",
      }),
    }, checkListeners);
  assert.is(
    await fault(),
    `user ${process.getuid?.()} listens on port ${port} of the parent`,
  );
  const known = await fault(() => Promise.resolve(undefined));
  assert.match(known ?? "", /^its heartbeat fails: /);
  server.close();
  await once(server, "close");
  assert.is(await fault(), "it does not listen");
});

test.run();
