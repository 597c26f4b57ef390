// The mover: a container of root's, without network, that alone touches the data of
// a move. It lives as long as the process that started it.

import { createInterface } from "node:readline";
import * as v from "valibot";
import { $ } from "zx/core";
import { inspectContainer, removeContainer } from "../docker/docker.ts";
import { exitCode, Failure, type FailureKind } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { waitFor } from "../std/wait.ts";
import {
  type Input,
  type OperationName,
  operations,
  type Output,
} from "./mover/operations.ts";
import type { Progress } from "./mover/run.ts";
import { createAlone, gracePeriodMs } from "./mover-lock.ts";
import { moverSpec } from "./mover-spec.ts";
import { insideMover } from "./mover/places.ts";
import { presentVolumes } from "./parts.ts";

const lineSchema = v.pipe(
  v.string(),
  v.parseJson(),
  v.union([
    v.object({
      progress: v.object({
        files: v.number(),
        bytes: v.number(),
        expected: v.number(),
      }),
    }),
    v.object({ result: v.unknown() }),
    v.object({
      failure: v.object({
        kind: v.picklist(Object.keys(exitCode) as FailureKind[]),
        message: v.string(),
        hint: v.optional(v.string()),
      }),
    }),
  ]),
);

export interface MoverOptions {
  /** With the volumes that there are; they can only be mounted at the start. */
  volumes: boolean;
  readOnly?: boolean;
}

export interface Mover {
  /** Performs an operation, and returns what it answers. */
  do<Name extends OperationName>(
    name: Name,
    input: Input<Name>,
    progress?: Progress,
  ): Promise<Output<Name>>;
}

/**
 * Calls `act` with a mover that ends afterwards. Throws a `busy` Failure while another
 * one moves data of the instance.
 */
export async function withMover<T>(
  instance: Instance,
  options: MoverOptions,
  act: (mover: Mover) => Promise<T>,
): Promise<T> {
  const { docker, prefix } = instance;
  const { volumes, readOnly = false } = options;
  const name = `${prefix}-mover${volumes ? "-volumes" : ""}`;
  const mounted = volumes ? await presentVolumes(instance) : [];
  await createAlone(docker, name, moverSpec(instance, mounted, readOnly));
  const { mover, end } = startMover(name);
  try {
    // Until it runs, it holds no lock.
    await mover.do("withData", { at: insideMover.volumes, parts: [] });
    return await act(mover);
  } finally {
    end();
    await waitFor(async () => !await inspectContainer(docker, name), {
      for: `${name} to end`,
      timeoutMs: gracePeriodMs,
    }).catch(() => removeContainer(docker, name));
  }
}

/** It ends when its stdin does, and that is when this process does. */
function startMover(name: string): { mover: Mover; end: () => void } {
  const options = { quiet: true, nothrow: true };
  const attached = $(options)`docker start --attach --interactive ${name}`;
  attached.stdin.on("error", () => {}); // it has ended
  const lines = createInterface({ input: attached.stdout })
    [Symbol.asyncIterator]();
  let started = false;
  const perform: Mover["do"] = async (op, input, progress = () => {}) => {
    attached.stdin.write(`${JSON.stringify({ op, ...input })}\n`);
    while (true) {
      const { value, done } = await lines.next();
      if (done) {
        const [why] = (await attached).stderr.trim().split("\n");
        const action = started ? `Cannot ${op} in` : "Cannot start";
        throw new Failure(
          started ? "failed" : "engine",
          `${action} ${name}: ${why || "it has ended"}`,
          { hint: "Run it again: it goes on from where it was." },
        );
      }
      started = true;
      const line = v.parse(lineSchema, value);
      if ("progress" in line) {
        const { files, bytes, expected } = line.progress;
        progress(files, bytes, expected);
        continue;
      }
      if ("result" in line) return v.parse(operations[op].output, line.result);
      const { kind, message, hint } = line.failure;
      throw new Failure(kind, message, { hint });
    }
  };
  return { mover: { do: perform }, end: () => attached.stdin.end() };
}
