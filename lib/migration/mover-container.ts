// The mover: a root container without network, which performs all accesses to a
// move's data. It ends with the process that started it.

import { createInterface } from "node:readline";
import * as v from "valibot";
import { $, type ProcessPromise } from "zx/core";
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
import { createExclusive, gracePeriodMs, moverName } from "./mover-lock.ts";
import { moverSpec } from "./mover-spec.ts";
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
  /** Mount the existing volumes; this is only possible at the start. */
  volumes: boolean;
  readOnly?: boolean;
}

export interface Mover {
  /** Performs an operation and returns its result. */
  do<Name extends OperationName>(
    name: Name,
    input: Input<Name>,
    progress?: Progress,
  ): Promise<Output<Name>>;
}

/**
 * Calls `act` with a mover that is stopped afterwards. Throws a `busy` Failure
 * while another process moves this instance's data.
 */
export async function withMover<T>(
  instance: Instance,
  { volumes, readOnly = false }: MoverOptions,
  act: (mover: Mover) => Promise<T>,
): Promise<T> {
  const { docker, prefix } = instance;
  const name = moverName(prefix, { volumes });
  const mounted = volumes ? await presentVolumes(instance) : [];
  await createExclusive(docker, name, moverSpec(instance, mounted, readOnly));
  // The mover ends when its stdin closes, which happens when this process ends.
  const options = { quiet: true, nothrow: true };
  const attached = $(options)`docker start --attach --interactive ${name}`;
  try {
    // Until it runs, another process may take it for an abandoned mover.
    await waitFor(async () => {
      if (attached.output) {
        const why = attached.output.stderr.trim();
        throw new Failure("engine", `Cannot start ${name}: ${why}`, {
          hint: "Rebuild the images: claudy up. Then run it again.",
        });
      }
      return (await inspectContainer(docker, name))?.State.Running;
    }, { for: `${name} to start`, timeoutMs: 20_000 });
    return await act({ do: performer(name, attached) });
  } finally {
    attached.stdin.end();
    await waitFor(async () => !await inspectContainer(docker, name), {
      for: `${name} to end`,
      timeoutMs: gracePeriodMs,
    }).catch(() => removeContainer(docker, name));
  }
}

/** Sends operations to a mover as lines of JSON, and reads its answers. */
function performer(name: string, attached: ProcessPromise): Mover["do"] {
  attached.stdin.on("error", () => {}); // the mover has ended
  const lines = createInterface({ input: attached.stdout })
    [Symbol.asyncIterator]();
  return async (op, input, progress = () => {}) => {
    attached.stdin.write(`${JSON.stringify({ op, ...input })}\n`);
    while (true) {
      const { value, done } = await lines.next();
      if (done) {
        const [why] = (await attached).stderr.trim().split("\n");
        const message = `Cannot ${op} in ${name}: ${
          why || "the mover has ended"
        }`;
        const hint = "Run it again to resume.";
        throw new Failure("failed", message, { hint });
      }
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
}
