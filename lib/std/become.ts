// Services in the parent: each opens its sockets as root, and then gives up root for good: the
// user, its group, and all supplementary groups.

import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import type { Server } from "node:net";
import process from "node:process";

declare const Deno: {
  dlopen(
    file: string,
    symbols: Record<string, unknown>,
  ): { symbols: { setgroups(count: number, list: null): number } };
};

/**
 * Runs under Deno as root; the group's default is that of the same number. Throws if
 * anything of root would be left.
 */
function become(uid: number, gid = uid): void {
  // process.setgroups() of Node does not exist in Deno. glibc sets it in every thread.
  const { symbols } = Deno.dlopen("libc.so.6", {
    setgroups: { parameters: ["usize", "pointer"], result: "i32" },
  });
  if (symbols.setgroups(0, null) !== 0) throw new Error("setgroups failed");
  process.setgid?.(gid);
  process.setuid?.(uid);
  const status = readFileSync("/proc/self/status", "utf8");
  const isOther = status.includes(
    `\nUid:\t${[uid, uid, uid, uid].join("\t")}\n`,
  );
  const isBare = /^Groups:\s*$/m.test(status) && /^CapPrm:\s*0+$/m.test(status);
  if (!isOther || !isBare) throw new Error("it still has rights of root");
}

/**
 * Listens at a socket of a service, for root, which is nsenter, and for the group of the
 * instance's owner.
 */
export async function listenForWorkers(
  server: Server,
  path: string,
  gid: number,
): Promise<void> {
  rmSync(path, { force: true });
  server.listen(path);
  await once(server, "listening");
  chmodSync(path, 0o660);
  if (isRoot()) chownSync(path, 0, gid);
}

/**
 * Becomes the user of a service, if this process is root. `oomScore`: it is killed before the
 * coordinator when the parent runs out of memory, the one with the highest first: proc(5).
 */
export function becomeService(
  { uid, gid, oomScore }: { uid: number; gid?: number; oomScore: number },
): void {
  if (!isRoot()) return;
  writeFileSync("/proc/self/oom_score_adj", String(oomScore));
  become(uid, gid);
}

const isRoot = () => process.getuid?.() === 0;
