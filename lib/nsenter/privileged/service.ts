// Serves the sockets of the nsenter container.

import { chmodSync, readFileSync, rmSync } from "node:fs";
import { release } from "node:os";
import * as v from "valibot";
import { messageOf } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import { listen } from "../../std/socket-lines.ts";
import { insideNsenter } from "../container.ts";
import { Attacher } from "./attach.ts";
import { Listeners } from "./listeners.ts";
import { type ContainerProcess, inProcess } from "./namespaces.ts";

const process = {
  pid: v.pipe(v.number(), v.integer(), v.minValue(2)),
  mark: v.pipe(v.string(), v.minLength(1)),
};
const id = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const port = v.pipe(
  v.number(),
  v.integer(),
  v.minValue(1),
  v.maxValue(65535),
);
const service = v.object({
  port,
  server: v.optional(v.pipe(v.string(), v.regex(/^[A-Za-z][\w-]*$/))),
});

const requestSchema = v.variant("op", [
  v.object({
    op: v.literal("test"),
    ...process,
    for: v.picklist(["mounts", "listeners"]),
  }),
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
  v.object({
    op: v.literal("open"),
    ...process,
    id,
    services: v.array(service),
    shared: v.boolean(),
  }),
  v.object({ op: v.literal("shared") }),
  v.object({ op: v.literal("keep"), ids: v.array(id) }),
]);

/** Serves the parent and the pool manager; `run` is the sockets' directory on the host. */
export async function serveNsenter(
  { roots, run }: { roots: string[]; run: string },
  log: Log,
): Promise<{ close(): Promise<void> }> {
  let attacher: Attacher | undefined;
  const listeners = new Listeners(
    ({ port, server }) =>
      server === undefined
        ? insideNsenter.service(port)
        : insideNsenter.server(server),
    log,
  );
  const test = (what: "mounts" | "listeners", other: ContainerProcess) => {
    if (what === "listeners") return listeners.test(other);
    attacher ??= new Attacher(roots);
    const { run: here, scratch } = insideNsenter;
    attacher.test(other, run, here, scratch);
  };
  const handle = (line: unknown): unknown => {
    const request = v.parse(requestSchema, line);
    switch (request.op) {
      case "look":
        return { attached: isMounted(request) };
      case "test":
        try {
          test(request.for, request);
          return {};
        } catch (error) {
          const what = request.for === "mounts" ? "mounts" : "entering workers";
          const why = `Linux ${release()}, ${messageOf(error)}`;
          const fault = `this machine does not allow ${what} (${why})`;
          log(fault);
          return { fault };
        }
      case "attach":
        if (!attacher) throw new Error("mounting was not tested");
        attacher.attach(request);
        return {};
      case "open":
        return { taken: listeners.open(request) };
      case "shared":
        return listeners.shared;
      case "keep":
        listeners.keep(request.ids);
        return {};
    }
  };
  serveConnections(listeners);
  // Only root can connect, and it keeps its connections open.
  const answer = (line: unknown) => Promise.resolve(handle(line));
  return await listen(insideNsenter.socket, answer, { idleTimeoutMs: 0 });
}

/** Connects clients to the workers' ports, for the owner of the instance. */
function serveConnections(listeners: Listeners): void {
  rmSync(insideNsenter.connect, { force: true });
  listeners.serve(insideNsenter.connect);
  chmodSync(insideNsenter.connect, 0o660);
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
