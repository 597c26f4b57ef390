// A claim: a warm worker becomes the worker of a project. What it is given is
// written down before anything is done, so that one which is broken off is known
// for what it is, and after it is done, for labels cannot change.

import { randomBytes } from "node:crypto";
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from "node:fs";
import { basename, join, resolve } from "node:path";
import * as v from "valibot";
import { capCpus, removeContainer, statusOf } from "../docker.ts";
import { forgetWorkerHome } from "../ending.ts";
import { messageOf } from "../errors.ts";
import { lookAt } from "../hostpath.ts";
import type { Instance } from "../instance.ts";
import type { Log } from "../log.ts";
import { writeWhole } from "../owned.ts";
import { type Project, refusalOf } from "../project.ts";
import {
  recordSchema,
  removeRecord,
  type WorkerRecord,
  writeRecord,
} from "../record.ts";
import { checkWorkerName, inside, type Limits } from "../worker.ts";
import { type PreparedHome, prepareWorkerHome } from "../worker-home.ts";
import type { AttachRequest } from "./attach.ts";
import { attach } from "./mounter.ts";
import type { ClaimRequest } from "./protocol.ts";
import type { WarmRecipe, WarmWorker } from "./warm.ts";

const claimSchema = v.object({
  /** The request's. */
  id: v.string(),
  record: recordSchema,
});

export type Claim = v.InferOutput<typeof claimSchema>;

/** Why a request cannot be a claim, in a word or two. */
export class Unfit extends Error {}

export interface Fitting {
  project: Project;
  name: string;
  limits: Limits;
}

/** Whether and how a warm worker can serve a request; throws Unfit where it cannot. */
export async function fit(
  instance: Instance,
  recipe: WarmRecipe,
  request: ClaimRequest,
  log: Log,
): Promise<Fitting> {
  if (request.instance !== instance.prefix) throw new Unfit("another instance");
  if (request.image !== recipe.image) throw new Unfit("another image");
  const project = projectOf(instance, request);
  const { owner } = instance;
  if (project.uid !== owner.uid || project.gid !== owner.gid) {
    throw new Unfit("the project has another owner");
  }
  const name = request.name === undefined
    ? instance.names.worker(randomBytes(4).toString("hex"))
    : checkWorkerName(request.name, instance.names);
  if (existsSync(instance.home.record(name))) throw new Unfit("name is taken");
  const cpus = await capCpus(instance.docker, request.limits.cpus, log);
  return { project, name, limits: { ...request.limits, cpus } };
}

function projectOf(instance: Instance, request: ClaimRequest): Project {
  let found;
  try {
    found = lookAt(resolve("/", request.directory), instance.host);
  } catch {
    // The cold spawn will say what is wrong with it.
    throw new Unfit("the project cannot be looked at");
  }
  if (!found) throw new Unfit("outside of the project roots");
  const refusal = request.allowAnyPath ? undefined : refusalOf(found.path, {
    home: instance.hostHome.home,
    socket: instance.socket,
  });
  if (refusal !== undefined || found.kind !== "directory") {
    throw new Unfit("no project for a worker");
  }
  return { path: found.path, uid: found.uid, gid: found.gid };
}

/**
 * Makes `worker` that of the project. Where it throws, the worker is of no more
 * use, and nothing else is left of the claim.
 */
export async function claimWorker(
  instance: Instance,
  recipe: WarmRecipe,
  worker: WarmWorker,
  request: ClaimRequest,
  { name, project, limits }: Fitting,
): Promise<Claim> {
  const { docker, home, owner } = instance;
  const prepared = prepareWorkerHome(instance, name, project);
  const claim: Claim = {
    id: request.id,
    record: {
      version: 1,
      worker: name,
      container: worker.id,
      session: null,
      project,
      image: recipe.image,
      born: "warm",
      home: `workers/${prepared.directory}`,
      ephemeral: request.name === undefined,
      secrets: null,
      memoryBytes: limits.memoryBytes,
      oomKilledAt: null,
      createdAt: new Date().toISOString(),
    },
  };
  const file = home.claim(worker.id);
  writeWhole(`${file}.pending`, JSON.stringify(claim), owner, 0o600);
  try {
    if (!sameLimits(limits, recipe.limits)) {
      await docker.getContainer(worker.id).update({
        Memory: limits.memoryBytes,
        MemorySwap: limits.memoryBytes,
        NanoCpus: Math.round(limits.cpus * 1e9),
        PidsLimit: limits.pids,
      });
    }
    const [renamed, attached] = await Promise.allSettled([
      docker.getContainer(worker.id).rename({ name }),
      attach(
        instance,
        attachmentOf(worker, project, prepared.sources.claudeHome ?? ""),
      ),
    ]);
    if (renamed.status === "rejected") {
      throw statusOf(renamed.reason) === 409
        ? new Unfit("name is taken")
        : renamed.reason;
    }
    if (attached.status === "rejected") throw attached.reason;
    writeRecord(instance, claim.record);
    renameSync(`${file}.pending`, file);
    return claim;
  } catch (error) {
    await undoClaim(instance, claim, prepared);
    throw error instanceof Unfit
      ? error
      : new Unfit(`the claim failed: ${messageOf(error)}`);
  }
}

/** Two mounts: the project, and the Claude home. */
export function attachmentOf(
  { id, pid }: Pick<WarmWorker, "id" | "pid">,
  { path, uid, gid }: Project,
  claudeHome: string,
): AttachRequest {
  const owned = { readOnly: false, uid, gid };
  return {
    container: id,
    pid,
    attachments: [
      { source: path, target: inside.workspace, ...owned },
      { source: claudeHome, target: inside.claudeHome, ...owned },
    ],
  };
}

function sameLimits(a: Limits, b: Limits): boolean {
  return a.memoryBytes === b.memoryBytes && a.cpus === b.cpus &&
    a.pids === b.pids;
}

async function undoClaim(
  instance: Instance,
  claim: Claim,
  prepared: PreparedHome,
): Promise<void> {
  await discardClaim(instance, claim);
  // Nobody has worked in it yet.
  if (prepared.made) forgetWorkerHome(instance, prepared.directory);
}

/** Ends the worker of a claim that nobody holds, and forgets the claim. */
export async function discardClaim(
  instance: Instance,
  { record }: Claim,
): Promise<void> {
  const { docker, home } = instance;
  await removeContainer(docker, record.container);
  if (record.ephemeral) forgetWorkerHome(instance, basename(record.home));
  dropRecord(instance, record);
  rmSync(`${home.claim(record.container)}.pending`, { force: true });
  rmSync(home.claim(record.container), { force: true });
}

/** Only where it is of this worker: another may have got the name. */
function dropRecord({ home }: Instance, record: WorkerRecord): void {
  try {
    const text = readFileSync(home.record(record.worker), "utf8");
    if (JSON.parse(text).container !== record.container) return;
  } catch {
    return; // there is none, or it is for reconciliation to judge
  }
  removeRecord({ home }, record.worker);
}

/** The claims that a former manager has done, and those that it has not. */
export function readClaims(
  { home }: Pick<Instance, "home">,
): { done: Claim[]; pending: Claim[] } {
  const done: Claim[] = [];
  const pending: Claim[] = [];
  for (const file of readdirSync(home.claims)) {
    const claim = readClaim(join(home.claims, file));
    if (claim) (file.endsWith(".pending") ? pending : done).push(claim);
  }
  return { done, pending };
}

/** The claim of a container, undefined where there is none that can be read. */
export function readClaim(path: string): Claim | undefined {
  try {
    return v.parse(claimSchema, JSON.parse(readFileSync(path, "utf8")));
  } catch {
    return undefined;
  }
}
