import { suite } from "uvu";
import * as assert from "uvu/assert";
import { listenerUsers } from "../../lib/std/socket-table.ts";

const test = suite("chromadb");

const table =
  `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000 65430        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   3: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4714 1 0 100 0 0 10 0
   2: 00000000:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
`;

test("listenerUsers() tells whose sockets listen on loopback at a port", () => {
  assert.equal(listenerUsers(table, 8000), [65430, 1000]);
});

test("listenerUsers() takes neither a connection nor another address for a listener", () => {
  assert.equal(listenerUsers(table, 8001), []);
  assert.equal(listenerUsers(table, 8002), []);
  assert.equal(listenerUsers(table, 9), []);
});

test.run();
