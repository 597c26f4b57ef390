// Serves the nsenter's socket.

import { readFileSync } from "node:fs";
import { release } from "node:os";
import * as v from "valibot";
import { messageOf } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { Attacher, type ContainerProcess, inProcess } from "./attach.ts";
import { listen, type Listener } from "../../std/socket-lines.ts";
import { insideNsenter } from "../container.ts";

const process = {
  pid: v.pipe(v.number(), v.integer(), v.minValue(2)),
  mark: v.pipe(v.string(), v.minLength(1)),
};

const requestSchema = v.variant("op", [
  v.object({ op: v.literal("test"), ...process }),
  v.object({
    op: v.literal("look"),
    ...process,
    targets: v.array(v.string()),
  }),
  v.object({
    op: v.literal("attach"),
    ...process,
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
export async function serveNsenter(
  { roots, run }: { roots: string[]; run: string },
  log: Log,
): Promise<Listener> {
  let attacher: Attacher | undefined;
  const handle = (line: unknown) => {
    const request = v.parse(requestSchema, line);
    if (request.op === "look") {
      return Promise.resolve({ attached: isMounted(request) });
    }
    if (request.op === "test") {
      try {
        attacher ??= new Attacher(roots);
        const { run: here, scratch } = insideNsenter;
        attacher.test(request, run, here, scratch);
        return Promise.resolve({});
      } catch (error) {
        const fault =
          `this machine does not allow mounts (Linux ${release()}, ${
            messageOf(error)
          })`;
        log(fault);
        return Promise.resolve({ fault });
      }
    }
    if (!attacher) throw new Error("the nsenter was not tested");
    attacher.attach(request);
    return Promise.resolve({});
  };
  // Only the pool manager can connect, and it keeps its connection open.
  return await listen(insideNsenter.socket, handle, { idleTimeoutMs: 0 });
}

/** Whether a process has a mount at one of the targets: proc_pid_mountinfo(5). */
function isMounted(
  { targets, ...process }: ContainerProcess & { targets: string[] },
): boolean {
  const mounts = inProcess(
    process,
    (path) => readFileSync(`${path}/mountinfo`, "utf8"),
  );
  return mounts.split("\n")
    .some((line) => targets.includes(line.split(" ")[4] ?? ""));
}
