import { suite } from "uvu";
import * as assert from "uvu/assert";
import { listenerInode } from "../../lib/chromadb.ts";

const test = suite("chromadb");

const table =
  `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F41 0100007F:1F40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1
   2: 00000000:1F42 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100 0 0 10 0
`;

test("listenerInode() finds who listens on loopback at a port", () => {
  assert.is(listenerInode(table, 8000), "4711");
});

test("listenerInode() takes neither a connection nor another address for it", () => {
  assert.is(listenerInode(table, 8001), undefined);
  assert.is(listenerInode(table, 8002), undefined);
  assert.is(listenerInode(table, 9), undefined);
});

test.run();
