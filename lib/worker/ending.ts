// How a worker ends: stopped, its log kept, then removed with what was its own.

import { Buffer } from "node:buffer";
import { join } from "node:path";
import {
  type Docker,
  inspectContainer,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { Failure, warnOnFileError } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { repairWorktrees } from "../project/worker-worktrees.ts";
import { keepNewest, writeAtomic } from "../std/owned.ts";
import {
  closeRecord,
  readRecords,
  type WorkerRecord,
} from "../instance/record.ts";
import { removeTree } from "../std/remove-tree.ts";
import { forgetSecrets } from "./secrets.ts";
import { oomText } from "./status.ts";
import { withoutFrames } from "../docker/streams.ts";
import type { WorkerState } from "./workers.ts";

/** How long a worker may take to end by itself before it is killed. */
const stopSeconds = 10;

/** Of one worker's log, and of workers' logs. */
const keptLogLines = 10_000;
const keptLogs = 200;

type Named = Pick<WorkerState, "name" | "id">;

/** Ends a worker and retires it. */
export async function stopWorker(
  instance: Instance,
  worker: Named,
  log: Log,
): Promise<void> {
  const record = readRecords(instance, log)
    .find(({ container }) => container === worker.id);
  if (record) {
    await repairWorktrees(instance, worker.id, record.project.path);
  }
  try {
    await instance.docker.getContainer(worker.id).stop({ t: stopSeconds });
  } catch (error) {
    // 304: it had ended already; 404, 409: another was faster to retire it.
    if (![304, 404, 409].includes(statusOf(error) ?? 0)) {
      throw engineFailure(error, `Cannot stop worker "${worker.name}"`);
    }
  }
  await retireWorker(instance, worker, log);
}

/**
 * Keeps the log of a worker that has ended, then removes its container, its
 * secrets and its record. Two may do so at once. In a home that cannot be written
 * the container goes all the same, with a warning of what was not kept.
 */
export async function retireWorker(
  instance: Instance,
  worker: Named,
  log: Log,
): Promise<void> {
  const { docker } = instance;
  const recordNow = () =>
    readRecords(instance, log)
      .find(({ container }) => container === worker.id);
  let known: WorkerRecord | undefined;
  await warnOnFileError(log, () => {
    known = recordNow();
  });
  const present = await inspectContainer(docker, worker.id);
  if (present) {
    await warnOnFileError(log, () => keepLog(instance, worker, present));
    await removeContainer(docker, worker.id);
  }
  await warnOnFileError(log, async () => {
    // It may have got another name in between; or another command has closed it,
    // which found the container gone and does not know how it ended.
    const record = recordNow() ?? (present ? known : undefined);
    if (record) await retireRecord(instance, record, present?.State);
  });
}

/** Removes what was a worker's own, and closes its record. */
async function retireRecord(
  instance: Instance,
  record: WorkerRecord,
  state: Docker.ContainerInspectInfo["State"] | undefined,
): Promise<void> {
  forgetSecrets(instance, record.secrets);
  if (record.ephemeral) await forgetHome(instance, record.home);
  closeRecord(instance, {
    ...record,
    oomKilledAt: record.oomKilledAt ??
      (state?.OOMKilled ? state.FinishedAt : null),
  }, {
    at: state?.FinishedAt ?? new Date().toISOString(),
    exitCode: state?.ExitCode ?? null,
  });
}

/**
 * Removes the Claude home of a worker whose name will not come again. What the
 * user of another's project left to us cannot be removed by the home's owner;
 * the parent does that later.
 */
export async function forgetHome(
  { home }: Pick<Instance, "home">,
  relative: string,
): Promise<void> {
  await removeTree(join(home.home, relative)).catch((error) => {
    if (!(error instanceof Failure)) throw error;
  });
}

async function keepLog(
  { docker, home, owner }: Instance,
  worker: Named,
  { Config, State, HostConfig }: Docker.ContainerInspectInfo,
): Promise<void> {
  try {
    const raw = await docker.getContainer(worker.id).logs({
      stdout: true,
      stderr: true,
      tail: keptLogLines,
    });
    // Docker frames the two streams of a worker without a terminal.
    const text = Config.Tty ? raw : withoutFrames(raw);
    const note = State.OOMKilled
      ? `\n[hal9000] ${oomText(HostConfig.Memory ?? null)}\n`
      : "";
    writeAtomic(
      home.log(worker.name),
      Buffer.concat([text, Buffer.from(note)]),
      owner,
    );
    keepNewest(home.logs, ".log", keptLogs);
  } catch (error) {
    // 404: gone; 409: another is removing it, who has kept it.
    if (![404, 409].includes(statusOf(error) ?? 0)) throw error;
  }
}
