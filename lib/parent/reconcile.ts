// Brings records and files in line with Docker, the source of truth. Runs in the
// parent at its start, after container events, and every minute.

import { rmSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { inDirectory, type Kind } from "../std/directory.ts";
import { type Docker } from "../docker/docker.ts";
import { engineFailure } from "../docker/docker-errors.ts";
import { forgetHome, retireWorker, stopWorker } from "../worker/ending.ts";
import { messageOf } from "../std/errors.ts";
import { type ContainerEvent, keepFollowing } from "../instance/events.ts";
import type { Instance } from "../instance/instance.ts";
import type { Role } from "../instance/labels.ts";
import type { Log } from "../std/log.ts";
import { keepNet } from "../daemon/net.ts";
import { isStaged } from "../std/owned.ts";
import { homeDirectories, type HomePaths } from "../instance/paths.ts";
import { readClaim } from "../pool/claim.ts";
import { isUsed } from "../pool/warm.ts";
import {
  closeRecord,
  isRecord,
  readRecord,
  readRecords,
  type WorkerRecord,
  writeRecord,
} from "../instance/record.ts";
import { forgetSecrets } from "../worker/secrets.ts";
import { insideWorker } from "../instance/paths.ts";
import { thawAbandoned } from "../workspace/frozen.ts";
import { listWorkers, type WorkerState } from "../worker/workers.ts";

export interface ReconcilePlan {
  /** Workers without a record, which get one. */
  adopt: WorkerState[];
  /** Records without a worker, which are closed. */
  close: WorkerRecord[];
  /** Workers to remove: they have ended or were never started, and are not kept. */
  retire: WorkerState[];
  /** Running workers of a single command that may have been abandoned. */
  abandoned: WorkerRecord[];
}

/** A created worker that is not started within this time never will be. */
const startGraceMs = 30_000;

/** Leftovers older than this do not belong to a worker that is being created. */
const orphanGraceMs = 10 * 60_000;

/** Delay after an event: the command that started or stops a worker cleans up first. */
const settleMs = 2000;
const everyMs = 60_000;

/** Roles of containers whose end requires a reconciliation. */
const followed: string[] = ["worker", "net"] satisfies Role[];

/** Decides what to do; changes nothing. */
export function planReconcile(
  workers: WorkerState[],
  records: WorkerRecord[],
  nowMs: number,
): ReconcilePlan {
  const ids = new Set(workers.map(({ id }) => id));
  const recorded = new Set(records.map(({ container }) => container));
  const over = ({ state, createdAt, keep }: WorkerState) =>
    !keep &&
    (state === "created"
      ? nowMs - Date.parse(createdAt) > startGraceMs
      : state === "exited" || state === "dead");
  return {
    adopt: workers.filter((worker) => !recorded.has(worker.id)),
    close: records.filter(({ container }) => !ids.has(container)),
    retire: workers.filter(over),
    abandoned: records.filter(({ once, container, createdAt }) =>
      once && ids.has(container) &&
      nowMs - Date.parse(createdAt) > startGraceMs
    ),
  };
}

/** Brings records and files in line with Docker, once. */
export async function reconcile(instance: Instance, log: Log): Promise<void> {
  await thawAbandoned(instance);
  // Records first: a worker that is spawned in between is only recorded twice. In
  // the other order, its record would be closed.
  const records = readRecords(instance, log);
  const workers = await listWorkers(instance);
  const plan = planReconcile(workers, records, Date.now());
  for (const worker of plan.adopt) await adopt(instance, worker, log);
  for (const worker of plan.retire) {
    log(`Worker "${worker.name}" has ended: ${worker.status || worker.state}`);
    await retireWorker(instance, worker, log);
  }
  for (const record of plan.abandoned) {
    if (await isUsed(instance, record.container)) continue;
    log(`Worker "${record.worker}" is no longer in use; stopping it`);
    const { worker: name, container: id } = record;
    await stopWorker(instance, { name, id }, log);
  }
  for (const record of plan.close) {
    log(`Worker "${record.worker}" is gone; closing its record`);
    forgetSecrets(instance, record.secrets);
    closeRecord(instance, record, {
      at: new Date().toISOString(),
      exitCode: null,
    });
  }
  await dropOrphans(instance, workers, log);
}

/** Reconciles now, after events and every minute, until `stop` is aborted. */
export async function keepReconciled(
  instance: Instance,
  stop: AbortSignal,
  log: Log,
): Promise<void> {
  let last = Promise.resolve();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = () => {
    clearTimeout(timer);
    last = last.then(() => keepNet(instance, log)).catch((error) =>
      log(`Cannot check ${instance.names.net}: ${messageOf(error)}`)
    ).then(() => reconcile(instance, log)).catch((error) =>
      log(`Cannot reconcile: ${messageOf(error)}`)
    );
    timer = setTimeout(run, everyMs);
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(run, settleMs);
  };
  run();
  stop.addEventListener("abort", () => clearTimeout(timer));
  await keepFollowing(
    instance,
    { actions: ["die", "destroy", "oom"], stop },
    {
      act: (event) => {
        if (!followed.includes(event.role)) return;
        if (event.action === "oom") noteOom(instance, event, log);
        else soon();
      },
      log,
    },
  );
  clearTimeout(timer);
  await last;
}

function noteOom(instance: Instance, event: ContainerEvent, log: Log): void {
  const record = readRecord(instance, event.name, log);
  if (record?.container !== event.id) return;
  const oomKilledAt = event.at.toISOString();
  // A worker can make hundreds of these a second; the engine's times are seconds.
  if (record.oomKilledAt === oomKilledAt) return;
  log(
    `Worker "${event.name}" ran out of memory; one of its processes was killed`,
  );
  writeRecord(instance, { ...record, oomKilledAt });
}

/** Recreates the missing record of a running worker from its container. */
async function adopt(
  instance: Instance,
  worker: WorkerState,
  log: Log,
): Promise<void> {
  const claim = readClaim(instance.home.claim(worker.id));
  if (claim) {
    log(`Worker "${worker.name}" has no record; restoring it from its claim`);
    return writeRecord(instance, { ...claim.record, worker: worker.name });
  }
  // A claim is in progress, which the pool will finish or undo.
  if (worker.born === "warm") return;
  let container: Docker.ContainerInspectInfo;
  try {
    container = await instance.docker.getContainer(worker.id).inspect();
  } catch (error) {
    log(engineFailure(error, `Cannot adopt worker "${worker.name}"`).message);
    return;
  }
  const [uid = 0, gid = 0] = container.Config.User.split(":").map(Number);
  const source = (target: string) =>
    container.Mounts.find(({ Destination }) => Destination === target)?.Source;
  const home = relative(
    instance.hostHome.home,
    source(insideWorker.claudeHome) ?? "",
  );
  const secrets = source(insideWorker.secrets)?.split("/").at(-1);
  const record: WorkerRecord = {
    version: 1,
    worker: worker.name,
    container: worker.id,
    session: worker.session,
    project: { path: worker.project, uid, gid },
    image: worker.image,
    born: worker.born === "warm" ? "warm" : "cold",
    home,
    // When in doubt, keep the home.
    ephemeral: false,
    secrets: secrets ?? null,
    memoryBytes: container.HostConfig.Memory || null,
    oomKilledAt: null,
    createdAt: worker.createdAt,
  };
  // For instance a foreign container with our labels.
  if (!isRecord(record)) {
    if (!foreignIds.has(worker.id)) {
      log(`Worker "${worker.name}" was not created by HAL-9000; ignoring it`);
    }
    foreignIds.add(worker.id);
    return;
  }
  log(`Worker "${worker.name}" has no record; adopting it`);
  writeRecord(instance, record);
}

/** Ids of containers that were reported already. */
const foreignIds = new Set<string>();

/**
 * Removes secrets and homes of workers that were never started, and claims of
 * removed workers.
 */
async function dropOrphans(
  instance: Instance,
  workers: WorkerState[],
  log: Log,
): Promise<void> {
  const { home, names } = instance;
  const records = readRecords(instance, log);
  const used = new Set(
    records.flatMap(({ secrets, home }) => [secrets, basename(home)]),
  );
  for (
    const name of oldEntries(dirname(home.workerSecrets("x")), "directory")
  ) {
    if (used.has(name)) continue;
    log(`Removing secrets that belong to no worker: ${name}`);
    forgetSecrets(instance, name);
  }
  // Only homes with generated names: others are reused by their name.
  const generated = new RegExp(`^${names.worker("[0-9a-f]{8}-[0-9a-f]{8}")}$`);
  for (const name of oldEntries(home.workers, "directory")) {
    if (used.has(name) || !generated.test(name)) continue;
    log(`Removing a home that belongs to no worker: ${name}`);
    await forgetHome(instance, `workers/${name}`);
  }
  const present = new Set(workers.map(({ id }) => id));
  for (const name of oldEntries(home.claims, "file")) {
    if (present.has(name.slice(0, name.indexOf(".")))) continue;
    rmSync(join(home.claims, name), { force: true });
  }
  dropStaged(home, log);
}

/** Removes temporary files of killed commands. */
export function dropStaged(home: HomePaths, log: Log): void {
  for (const directory of stagingPlaces(home)) {
    for (const name of oldEntries(directory, "file").filter(isStaged)) {
      log(`Removing an unfinished file: ${name}`);
      rmSync(join(directory, name), { force: true });
    }
  }
}

/** Per run; the next reconciliations check the rest. */
const maxEntries = 20_000;

/** Names of entries that were last changed before the grace period. */
function oldEntries(directory: string, kind: Kind): string[] {
  return inDirectory(directory, (opened) => {
    const names: string[] = [];
    let looked = 0;
    for (const { name } of opened.entries()) {
      if (++looked > maxEntries) break;
      const stat = opened.stat(name);
      if (stat?.kind !== kind) continue;
      if (Date.now() - stat.mtimeMs > orphanGraceMs) names.push(name);
    }
    return names;
  }) ?? [];
}

/** Directories with temporary files, except the workers' own homes. */
function stagingPlaces(home: HomePaths): string[] {
  const directories = [
    ...homeDirectories(home),
    home.ended,
    home.login,
    home.namedSecrets,
  ];
  const accounts = join(home.run, "accounts");
  return [
    ...directories,
    ...oldEntries(accounts, "directory").map((name) => join(accounts, name)),
  ];
}
