// Turns a warm worker into the worker of a project. The assignment is stored in a
// claim file beside the record, because labels cannot change. A used warm worker
// with neither file is left from an interrupted claim.

import { rmSync, unlinkSync } from "node:fs";
import { access } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import {
  type Docker,
  findContainer,
  isNameTaken,
  removeContainer,
} from "../docker/docker.ts";
import { inDirectory } from "../std/directory.ts";
import { forgetHome } from "../worker/ending.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import { type Staged, stageFile } from "../std/owned.ts";
import { readJson } from "../std/json.ts";
import { type Project, recordedProject } from "../project/project.ts";
import { stageSnapshot } from "../project/guarding.ts";
import {
  readRecord,
  recordSchema,
  removeRecord,
  stageRecord,
  type WorkerRecord,
} from "../instance/record.ts";
import { isolatedMode } from "../worker/network.ts";
import type { Limits } from "../worker/limits.ts";
import { limitsOf } from "../worker/spec.ts";
import { insideWorker } from "../instance/paths.ts";
import {
  prepareWorkerHome,
  sessionHome,
  workerHome,
} from "../home/worker-home.ts";
import type { Attachment } from "../nsenter/privileged/attach.ts";
import { type Nsenter, NsenterLost } from "../nsenter/container.ts";
import { type Fitting, Unfit } from "./fit.ts";
import type { ClaimRequest } from "./protocol.ts";
import type { WarmRecipe, WarmWorker } from "./warm.ts";

const claimSchema = v.object({
  /** The id of the request. */
  id: v.string(),
  record: recordSchema,
});

export type Claim = v.InferOutput<typeof claimSchema>;

/**
 * Assigns `worker` to the project. If it throws, the worker is removed, and nothing
 * else is left of the claim.
 */
export async function claimWorker(
  instance: Instance,
  nsenter: Nsenter,
  { recipe, worker, request, fitting }: {
    recipe: WarmRecipe;
    worker: WarmWorker;
    request: ClaimRequest;
    fitting: Fitting;
  },
): Promise<Claim> {
  const { name, project, mounts, limits } = fitting;
  const { docker, home } = instance;
  const { session } = request;
  const claim: Claim = {
    id: request.id,
    record: {
      version: 1,
      worker: name,
      container: worker.id,
      session: session ?? null,
      ...recordedProject(project, request.copyOf),
      image: recipe.image,
      born: "warm",
      home: session === undefined
        ? workerHome(name, project)
        : sessionHome(session),
      ephemeral: request.name === undefined,
      once: request.once,
      ...(request.unguarded ? { unguarded: true } : {}),
      ...(recipe.relay && request.relay !== "on" ? { unrelayed: true } : {}),
      secrets: null,
      memoryBytes: limits.memoryBytes,
      oomKilledAt: null,
      createdAt: new Date().toISOString(),
    },
  };
  const staged: Staged[] = [];
  try {
    if (!sameLimits(limits, recipe.limits)) {
      await changeLimits(docker, worker.id, limits);
    }
    // Renaming takes the engine some time. The request is sent first, and the other
    // steps run in the meantime.
    const renaming = rename(docker, worker, name);
    renaming.catch(() => {}); // thrown where it is awaited below
    await access(home.workers);
    const prepared = prepareWorkerHome(
      instance,
      { name, session, user: project },
      project,
    );
    const claudeHome = prepared.sources.claudeHome ?? "";
    const attaching = nsenter.attach({
      pid: worker.pid,
      mark: worker.mark,
      attachments: [
        ...attachmentsOf(project, claudeHome, mounts),
        ...ownHosts(instance, claim.record, recipe.network),
      ],
    });
    attaching.catch(() => {});
    // In this order: a record makes the worker count as in use.
    staged.push(
      stageClaim(instance, claim),
      ...(fitting.snapshot
        ? [stageSnapshot(instance, session ?? name, fitting.snapshot)]
        : []),
      stageRecord(instance, claim.record, loose),
    );
    await renaming;
    await attaching;
    for (const file of staged) file.commit();
    return claim;
  } catch (error) {
    for (const file of staged) file.drop();
    // A new home is kept: a faster worker may have taken the name and use it.
    await discardClaim(instance, claim);
    throw error instanceof Unfit || error instanceof NsenterLost
      ? error
      : new Unfit(`the claim failed: ${messageOf(error)}`);
  }
}

/** No fsync: a worker does not survive a crash of the machine anyway. */
const loose = { sync: false };

function stageClaim(
  { home, owner }: Pick<Instance, "home" | "owner">,
  claim: Claim,
): Staged {
  const path = home.loan(claim.record.container);
  return stageFile(path, JSON.stringify(claim), owner, loose);
}

/** Removes the worker of an unconfirmed claim. Returns false if it is confirmed. */
export async function expireClaim(
  instance: Instance,
  claim: Claim,
): Promise<boolean> {
  try {
    unlinkSync(instance.home.loan(claim.record.container));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    return false;
  }
  await discardClaim(instance, claim);
  return true;
}

async function changeLimits(
  docker: Docker,
  id: string,
  limits: Limits,
): Promise<void> {
  const { NanoCpus, ...others } = limitsOf(limits);
  await docker.getContainer(id).update({ NanoCpus, ...others });
  const { HostConfig } = await findContainer(docker, id);
  // Podman accepts them without an effect.
  if (HostConfig.NanoCpus !== NanoCpus) {
    throw new Unfit("the engine cannot change the CPUs of a worker");
  }
}

async function rename(
  docker: Docker,
  { id }: WarmWorker,
  name: string,
): Promise<void> {
  try {
    await docker.getContainer(id).rename({ name });
  } catch (error) {
    const isTaken = await isNameTaken(docker, name, error);
    throw isTaken ? new Unfit("name is taken") : error;
  }
}

/** Where each claimed worker has something attached. */
export const claimTargets = [insideWorker.workspace, insideWorker.claudeHome];

/** The project, the Claude home, and other mounts within the project. */
export function attachmentsOf(
  { path, uid, gid }: Project,
  claudeHome: string,
  others: Attachment[],
): Attachment[] {
  const owned = { readOnly: false, uid, gid };
  return [
    { source: path, target: insideWorker.workspace, ...owned },
    { source: claudeHome, target: insideWorker.claudeHome, ...owned },
    // Parents first, or they would cover what is mounted in them.
    ...others.toSorted((a, b) => a.target < b.target ? -1 : 1)
      .map(({ source, target, readOnly, uid, gid }) => ({
        source,
        target,
        readOnly,
        uid,
        gid,
      })),
  ];
}

/** The relay is in the hosts file of a shared worker that was made for it. */
export function ownHosts(
  { hostHome, owner }: Pick<Instance, "hostHome" | "owner">,
  { unrelayed }: Pick<WorkerRecord, "unrelayed">,
  network: string | undefined,
): Attachment[] {
  if (!unrelayed || network === isolatedMode) return [];
  const source = join(hostHome.netFiles, "hosts");
  return [{ source, target: "/etc/hosts", readOnly: true, ...owner }];
}

function sameLimits(a: Limits, b: Limits): boolean {
  return a.memoryBytes === b.memoryBytes && a.cpus === b.cpus &&
    a.pids === b.pids;
}

/** Removes the worker of an abandoned claim, and the claim's files. */
async function discardClaim(
  instance: Instance,
  { record }: Claim,
): Promise<void> {
  // First: after a kill, a worker with a record counts as in use.
  dropRecord(instance, record);
  rmSync(instance.home.loan(record.container), { force: true });
  await removeContainer(instance.docker, record.container);
  if (record.ephemeral) await forgetHome(instance, record.home);
}

/** Only if it belongs to this worker: another worker may have taken the name. */
function dropRecord(instance: Instance, record: WorkerRecord): void {
  try {
    const present = readRecord(instance, record.worker);
    if (present?.container !== record.container) return;
  } catch {
    return; // left to the reconciliation
  }
  removeRecord(instance, record.worker);
}

/** Reads the granted claims, without those that are only staged. */
export function readClaims({ home }: Pick<Instance, "home">): Claim[] {
  const claims: Claim[] = [];
  inDirectory(home.claims, (directory) => {
    let looked = 0;
    for (const { name } of directory.entries()) {
      if (++looked > maxEntries) break;
      if (!/\.(loan|json)$/.test(name)) continue;
      const claim = readClaim(join(home.claims, name));
      if (claim) claims.push(claim);
    }
  });
  return claims;
}

/** Far more than a pool has. */
const maxEntries = 10_000;
const maxBytes = 256 * 1024;

/** The claim in a file; undefined if there is none, or it cannot be read. */
export function readClaim(path: string): Claim | undefined {
  return readJson(path, claimSchema, maxBytes);
}
