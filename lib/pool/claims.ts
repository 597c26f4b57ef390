// Claims of warm workers. A claim that its client does not confirm expires, and its
// worker is removed.

import { inspectContainer } from "../docker/docker.ts";
import { workerImage } from "../image/recipes.ts";
import { messageOf } from "../std/errors.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import {
  attachmentsOf,
  type Claim,
  claimTargets,
  claimWorker,
  expireClaim,
  ownHosts,
  readClaim,
  readClaims,
} from "./claim.ts";
import { fit, gitMountsWithin, Unfit, workspaceOf } from "./fit.ts";
import type { Peer } from "../std/socket-lines.ts";
import type { Metrics } from "./metrics.ts";
import { type Nsenter, NsenterLost } from "../nsenter/container.ts";
import type { ClaimReply, ClaimRequest } from "./protocol.ts";
import type { Stock } from "./stock.ts";
import { markOf } from "../worker/network.ts";

/** Time for the client to confirm a claim, before its worker is removed. */
const confirmTimeoutMs = 5000;

export interface ClaimOptions {
  nsenter: Nsenter;
  stock: Stock;
  metrics: Metrics;
  /** Throws Unfit if nsenter cannot attach mounts now. */
  requireNsenter: () => Promise<void>;
  /** Called if nsenter does not answer. */
  nsenterLost: () => void;
}

export class Claims {
  readonly #instance: Instance;
  readonly #nsenter: Nsenter;
  readonly #stock: Stock;
  readonly #metrics: Metrics;
  readonly #requireNsenter: () => Promise<void>;
  readonly #nsenterLost: () => void;
  readonly #log: Log;
  /** Claims in progress, by request id. */
  readonly #running = new Map<string, Promise<ClaimReply>>();
  /** Granted claims by request id, for repeated requests. */
  readonly #granted = new Map<string, Claim>();

  constructor(instance: Instance, options: ClaimOptions, log: Log) {
    this.#instance = instance;
    this.#nsenter = options.nsenter;
    this.#stock = options.stock;
    this.#metrics = options.metrics;
    this.#requireNsenter = options.requireNsenter;
    this.#nsenterLost = options.nsenterLost;
    this.#log = log;
  }

  /** Idempotent: a repeated request gets the answer to the first one. */
  async grant(request: ClaimRequest, peer: Peer): Promise<ClaimReply> {
    const before = this.#granted.get(request.id);
    if (before) return warmReply(before);
    const running = this.#running.get(request.id) ?? this.#claim(request);
    this.#running.set(request.id, running);
    try {
      return await running;
    } finally {
      this.#running.delete(request.id);
      if (!peer.open) {
        this.#log("A client disconnected before its claim was answered");
        const claim = this.#granted.get(request.id);
        if (claim) void this.#expire(claim);
      }
    }
  }

  async #claim(request: ClaimRequest): Promise<ClaimReply> {
    const startedAt = performance.now();
    try {
      await this.#requireNsenter();
      if (!this.#stock.begun) throw new Unfit("the pool has only begun");
      if (this.#stock.networkDown) throw new Unfit("the network is down");
      const image = request.image ?? workerImage(this.#instance.settings);
      const recipe = this.#stock.recipeOf(image);
      if (!recipe) throw new Unfit("another image");
      if ((request.imageId ?? recipe.imageId) !== recipe.imageId) {
        throw new Unfit("the image is newer");
      }
      const fitting = await fit(this.#instance, request, recipe);
      const worker = this.#stock.take(recipe);
      if (!worker) throw new Unfit("the pool is empty");
      const claim = await claimWorker(
        this.#instance,
        this.#nsenter,
        { recipe, worker, request, fitting },
      );
      this.add(claim);
      this.#metrics.claimed(performance.now() - startedAt);
      return warmReply(claim, fitting.notices);
    } catch (error) {
      const reason = messageOf(error);
      if (!(error instanceof Unfit || error instanceof NsenterLost)) {
        this.#log(`A claim failed: ${reason}`);
      }
      if (error instanceof NsenterLost) this.#nsenterLost();
      this.#metrics.refused(reason);
      return { start: "cold", reason };
    } finally {
      // After the answer, so that creating the next worker does not delay this claim.
      setTimeout(() => void this.#stock.plan());
    }
  }

  /** Adds a granted claim. It expires unless the client confirms it in time. */
  add(claim: Claim): void {
    this.#granted.set(claim.id, claim);
    setTimeout(() => void this.#expire(claim), confirmTimeoutMs);
  }

  async #expire(claim: Claim): Promise<void> {
    try {
      if (!await expireClaim(this.#instance, claim)) return;
      this.#granted.delete(claim.id);
      this.#log(
        `Removed "${claim.record.worker}": its claim was not confirmed`,
      );
    } catch (error) {
      this.#log(`Cannot remove "${claim.record.worker}": ${messageOf(error)}`);
    }
  }

  /** Attaches the project again after a claimed worker has restarted without its mounts. */
  async attachAgain(id: string): Promise<void> {
    const claim = readClaim(this.#instance.home.claim(id));
    if (claim) await this.#attach(claim);
  }

  /** The same for workers that restarted while the engine's events were not followed. */
  async attachMissing(): Promise<void> {
    for (const claim of readClaims(this.#instance)) {
      await this.#attach(claim, { onlyMissing: true });
    }
  }

  async #attach(
    { record }: Claim,
    { onlyMissing = false } = {},
  ): Promise<void> {
    const { docker, hostHome } = this.#instance;
    try {
      const container = await inspectContainer(docker, record.container);
      if (!container?.State.Running) return;
      const { State, Config, HostConfig } = container;
      const mark = markOf(Config);
      if (mark === undefined) {
        if (onlyMissing) return;
        throw new Error("it was started by an earlier version");
      }
      const process = { pid: State.Pid, mark };
      if (
        onlyMissing && await this.#nsenter.isAttached(process, claimTargets)
      ) return;
      this.#log(
        `"${record.worker}" was restarted; attaching its project again`,
      );
      await this.#nsenter.attach({
        ...process,
        attachments: [
          ...attachmentsOf(
            workspaceOf(record),
            `${hostHome.home}/${record.home}`,
            gitMountsWithin(this.#instance, record),
          ),
          ...ownHosts(this.#instance, record, HostConfig.NetworkMode),
        ],
      });
    } catch (error) {
      this.#log(`Cannot attach to "${record.worker}": ${messageOf(error)}`);
    }
  }

  /** Forgets the claim of a container that was removed. */
  forget(container: string): void {
    for (const [request, { record }] of this.#granted) {
      if (record.container === container) this.#granted.delete(request);
    }
  }
}

function warmReply({ record }: Claim, notices: string[] = []): ClaimReply {
  const { container, worker, project, image } = record;
  return {
    start: "warm",
    worker: { id: container, name: worker, project: project.path, image },
    ...(notices.length > 0 ? { notices } : {}),
  };
}
