// Runs lib/workspace/git in a container: without a network, as the owner of the files, and
// with only the directories that it needs.

import * as v from "valibot";
import { engineFailure } from "../docker/docker-errors.ts";
import { userInContainers } from "../docker/engine-info.ts";
import { runHelper, type Talk } from "../helper/helper.ts";
import { bind } from "../instance/container-spec.ts";
import type { Instance } from "../instance/instance.ts";
import { exitCode, Failure, type FailureKind } from "../std/errors.ts";
import { inodeOf } from "../std/hostpath.ts";
import type { Log } from "../std/log.ts";
import type { Owner } from "../std/owned.ts";
import { binarySize, span } from "../std/units.ts";
import { frozenAnswer, messageSchema } from "./git/host.ts";
import type { Limits } from "./git/limits.ts";
import type { Request } from "./git/workspace.ts";
import { type Scratch, secondOf } from "./scratch.ts";

/** Where directories are in the container. */
export const inside = {
  /** A directory of our own, for what the program makes. */
  own: "/out",
  /** As in a worker: worktrees and alternates that a session makes have absolute paths. */
  copy: "/workspace",
  tree: "/source/tree",
  common: "/source/git",
  worktree: "/source/own",
} as const;

export interface Mounted {
  /** As a path of the engine's machine. */
  source: string;
  target: string;
  readOnly: boolean;
  /** That it must have; undefined for what no worker can replace. */
  inode?: string | undefined;
}

export interface Work {
  /** The beginning of error messages. */
  subject: string;
  user: Owner;
  mounts: Mounted[];
  work: Request["work"];
  log: Log;
  /** For a step that reads what a session has written. @default a long time */
  limits?: Pick<Limits, "timeoutMs" | "exceeded">;
  /**
   * Runs `act` while the worker whose files are copied stands still.
   * @default none does, and nothing asks for it
   */
  frozen?: WhileFrozen | undefined;
}

export type WhileFrozen = (act: () => Promise<void>) => Promise<void>;

const failureSchema = v.object({
  kind: v.string(),
  message: v.string(),
  hint: v.nullable(v.string()),
});

const answerSchema = v.union([
  v.object({ failure: failureSchema }),
  v.object({ result: v.unknown() }),
]);

/** Long enough for a repository of many gigabytes. */
const defaultTimeoutMs = 60 * 60_000;
const memoryBytes = 2 * 1024 ** 3;

/**
 * Runs one step in a container; throws the Failure of the program. A second container only
 * reads what the first one made.
 */
export async function perform<T>(
  instance: Instance,
  schema: v.GenericSchema<unknown, T>,
  scratch: Scratch,
  step: Work,
  { ownReadOnly = false } = {},
): Promise<T> {
  const { subject, user, mounts, work, limits } = step;
  const { uid, gid } = await userInContainers(instance.docker, user, subject);
  const checks = [
    { path: inside.own, inode: inodeOf(scratch.path) },
    ...mounts.flatMap(({ target, inode }) =>
      inode === undefined ? [] : [{ path: target, inode }]
    ),
  ];
  const request: Request = { work, checks };
  const timeoutMs = limits?.timeoutMs ?? defaultTimeoutMs;
  const begun = performance.now();
  const listener = listenTo(step);
  const output = await runHelper(instance, {
    subject,
    id: ownReadOnly ? secondOf(scratch.id) : scratch.id,
    command: ["/scripts/workspace"],
    user: `${uid}:${gid}`,
    env: [`TMPDIR=${ownReadOnly ? "/tmp" : inside.own}`],
    rights: {
      Mounts: [
        bind(scratch.hostPath, inside.own, ownReadOnly),
        ...mounts.map(({ source, target, readOnly }) =>
          bind(source, target, readOnly)
        ),
      ],
    },
    input: JSON.stringify(request),
    onError: listener.onError,
    timeoutMs,
    memoryBytes,
  }).catch((error) => {
    if (!limits || performance.now() - begun < timeoutMs) throw error;
    throw limits.exceeded(`${subject}: it took longer than ${span(timeoutMs)}`);
  }).finally(listener.ended);
  const answer = parsed(output, subject);
  if ("failure" in answer) {
    const { kind, message, hint } = answer.failure;
    throw new Failure(
      Object.hasOwn(exitCode, kind) ? kind as FailureKind : "failed",
      `${subject}: ${message}`,
      { hint: hint ?? undefined },
    );
  }
  return v.parse(schema, answer.result);
}

/** Acts upon the messages of the program; `ended` waits until the worker goes on. */
function listenTo({ subject, log, frozen = (act) => act() }: Work) {
  let thaw = () => {};
  const thawed = new Promise<void>((resolve) => thaw = resolve);
  let freezing: Promise<void> | undefined;
  const freeze = async (program: Talk) => {
    try {
      await frozen(() => {
        program.send(frozenAnswer);
        return thawed;
      });
    } catch (error) {
      const failure = engineFailure(error, subject);
      program.fail(failure);
      throw failure;
    }
  };
  return {
    onError: (line: string, program: Talk) => {
      const { success, output } = v.safeParse(
        v.pipe(v.string(), v.parseJson(), messageSchema),
        line,
      );
      if (!success) log(line);
      else if ("log" in output) log(output.log);
      else if ("progress" in output) log.progress?.(output.progress);
      else if (!("freeze" in output)) thaw();
      else if (!freezing) {
        freezing = freeze(program);
        freezing.catch(() => {}); // ended() throws it.
      }
    },
    ended: async () => {
      thaw();
      log.progress?.("");
      // The program may have ended before.
      await freezing;
    },
  };
}

function parsed(output: string, subject: string) {
  if (output === "") {
    throw new Failure(
      "resources",
      `${subject}: its container was killed, perhaps for want of memory`,
      { hint: `It may use ${binarySize(memoryBytes)}.` },
    );
  }
  try {
    return v.parse(answerSchema, JSON.parse(output));
  } catch (error) {
    const [line = ""] = output.trim().split("\n");
    throw new Failure("failed", `${subject}: ${line.slice(0, 200)}`, {
      cause: error,
      hint: "Rebuild the images: claudy upgrade",
    });
  }
}
