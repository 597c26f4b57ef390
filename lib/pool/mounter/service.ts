// Serves the mounter's socket.

import { readFileSync } from "node:fs";
import { release } from "node:os";
import * as v from "valibot";
import { messageOf } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { Attacher } from "./attach.ts";
import { listen, type Listener } from "../../std/socket-lines.ts";
import { insideMounter } from "../mounter-container.ts";

const requestSchema = v.variant("op", [
  v.object({ op: v.literal("test") }),
  v.object({
    op: v.literal("look"),
    pid: v.pipe(v.number(), v.integer(), v.minValue(2)),
    targets: v.array(v.string()),
  }),
  v.object({
    op: v.literal("attach"),
    container: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
    pid: v.pipe(v.number(), v.integer(), v.minValue(2)),
    attachments: v.array(v.object({
      source: v.pipe(v.string(), v.startsWith("/")),
      target: v.pipe(v.string(), v.startsWith("/")),
      readOnly: v.boolean(),
      uid: v.number(),
      gid: v.number(),
    })),
  }),
]);

/** Serves the pool manager; `run` is the socket's directory on the host. */
export async function serveMounter(
  { roots, run }: { roots: string[]; run: string },
  log: Log,
): Promise<Listener> {
  const { attacher, fault } = tested(roots, run);
  if (fault !== undefined) log(fault);
  const handle = (line: unknown) => {
    const request = v.parse(requestSchema, line);
    if (request.op === "test") return Promise.resolve({ fault });
    if (request.op === "look") {
      return Promise.resolve({ attached: isMounted(request) });
    }
    if (!attacher) throw new Error(fault);
    attacher.attach(request);
    return Promise.resolve({});
  };
  // Only the pool manager can connect, and it keeps its connection open.
  return await listen(insideMounter.socket, handle, { idleTimeoutMs: 0 });
}

/** Whether a process has a mount at one of the targets: proc_pid_mountinfo(5). */
function isMounted({ pid, targets }: { pid: number; targets: string[] }) {
  return readFileSync(`/proc/${pid}/mountinfo`, "utf8").split("\n")
    .some((line) => targets.includes(line.split(" ")[4] ?? ""));
}

/** An attacher that passed its self-test, else the reason for the failure. */
function tested(
  roots: string[],
  run: string,
): { attacher?: Attacher; fault?: string } {
  try {
    const attacher = new Attacher(roots);
    attacher.test(run, insideMounter.run, insideMounter.scratch);
    return { attacher };
  } catch (error) {
    const reason = messageOf(error);
    return {
      fault:
        `this machine does not allow mounts (Linux ${release()}, ${reason})`,
    };
  }
}
