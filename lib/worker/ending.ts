// Ends a worker: stops it, saves its log, then removes its container and its files.

import { Buffer } from "node:buffer";
import { join } from "node:path";
import {
  type Docker,
  inspectContainer,
  readLog,
  removeContainer,
} from "../docker/docker.ts";
import { engineFailure, statusOf } from "../docker/docker-errors.ts";
import { Failure, warnOnFileError } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { forgetSnapshot, plantedIn } from "../project/guarding.ts";
import { plantedLines } from "../project/planted.ts";
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

/** Time for a worker to exit on SIGTERM before it is killed. */
const stopSeconds = 10;

/** Limits of the saved logs: lines per log, and number of logs. */
const maxLogLines = 10_000;
const maxLogs = 200;

type Named = Pick<WorkerState, "name" | "id">;

/**
 * Stops a worker, and retires it unless `keep` is set. Not an error if it has already
 * exited.
 */
export async function stopWorker(
  instance: Instance,
  worker: Named,
  log: Log,
  { keep = false } = {},
): Promise<void> {
  const record = readRecords(instance, log)
    .find(({ container }) => container === worker.id);
  if (record && record.workspace === undefined) {
    await repairWorktrees(instance, worker.id, record.project.path);
  }
  try {
    await instance.docker.getContainer(worker.id).stop({ t: stopSeconds });
  } catch (error) {
    // 304: already stopped; 404, 409: another process is retiring it.
    if (![304, 404, 409].includes(statusOf(error) ?? 0)) {
      throw engineFailure(error, `Cannot stop worker "${worker.name}"`);
    }
  }
  if (!keep) await retireWorker(instance, worker, log);
  else if (record) {
    await warnOnFileError(log, () => tellPlanted(instance, record, log));
  }
}

/** What a worker has added to its project that programs on the host run. */
function tellPlanted(
  instance: Instance,
  { worker, session, project }: WorkerRecord,
  log: Log,
): void {
  const planted = plantedIn(instance, session ?? worker);
  if (planted) plantedLines(project.path, planted).forEach(log);
}

/**
 * Saves the log of an exited worker, removes its container and its secrets, then
 * closes its record. Safe to run concurrently for the same worker. If HAL9000_HOME
 * cannot be written, the container is still removed, and warnings are logged.
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
    await warnOnFileError(log, () => saveLog(instance, worker, present));
    await removeContainer(docker, worker.id);
  }
  await warnOnFileError(log, async () => {
    // Read again: a claim may have renamed the worker. Or another command has closed the
    // record without an exit code, since the container was already removed.
    const record = recordNow() ?? (present ? known : undefined);
    if (record) await retireRecord(instance, record, present?.State, log);
  });
}

/** Removes a worker's secrets and its ephemeral home, and closes its record. */
async function retireRecord(
  instance: Instance,
  record: WorkerRecord,
  state: Docker.ContainerInspectInfo["State"] | undefined,
  log: Log,
): Promise<void> {
  tellPlanted(instance, record, log);
  // That of a session is kept for `claudy sessions show`.
  if (record.session === null) forgetSnapshot(instance, record.worker);
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
 * Removes the Claude home of a worker with a generated name. Files of another user
 * cannot be removed by the owner of HAL9000_HOME; the parent removes those later.
 */
export async function forgetHome(
  { home }: Pick<Instance, "home">,
  relative: string,
): Promise<void> {
  await removeTree(join(home.home, relative)).catch((error) => {
    if (!(error instanceof Failure)) throw error;
  });
}

async function saveLog(
  { docker, home, owner }: Pick<Instance, "docker" | "home" | "owner">,
  worker: Named,
  { Config, State, HostConfig }: Docker.ContainerInspectInfo,
): Promise<void> {
  try {
    const raw = await readLog(docker, worker.id, maxLogLines);
    // Without a TTY, Docker multiplexes stdout and stderr with frame headers.
    const text = Config.Tty ? raw : withoutFrames(raw);
    const note = State.OOMKilled
      ? `\n[hal9000] ${oomText(HostConfig.Memory ?? null)}\n`
      : "";
    writeAtomic(
      home.log(worker.name),
      Buffer.concat([text, Buffer.from(note)]),
      owner,
    );
    keepNewest(home.logs, ".log", maxLogs);
  } catch (error) {
    // 404: removed; 409: being removed by another process, which has saved the log.
    if (![404, 409].includes(statusOf(error) ?? 0)) throw error;
  }
}
