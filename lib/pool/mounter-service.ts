// The mounter's side of its socket.

import { release } from "node:os";
import * as v from "valibot";
import { messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import { Attacher } from "./attach.ts";
import { listen, type Listener } from "./lines.ts";
import { insideMounter } from "./mounter.ts";

const requestSchema = v.variant("op", [
  v.object({ op: v.literal("test") }),
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

/** Answers the pool manager; `run` is the socket's directory on the host. */
export async function serveMounter(
  { roots, run }: { roots: string[]; run: string },
  log: Log,
): Promise<Listener> {
  const { attacher, fault } = tested(roots, run);
  if (fault !== undefined) log(fault);
  return await listen(insideMounter.socket, undefined, (line) => {
    const request = v.parse(requestSchema, line);
    if (request.op === "test") return Promise.resolve({ fault });
    if (!attacher) throw new Error(fault);
    attacher.attach(request);
    return Promise.resolve({});
  });
}

/** An attacher that has shown that it can; else why it cannot. */
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
      fault: `this machine allows no mounts (Linux ${release()}, ${reason})`,
    };
  }
}
