// Gives up root for good: the user, its group, and all supplementary groups.

import { readFileSync } from "node:fs";
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
export function become(uid: number, gid = uid): void {
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
