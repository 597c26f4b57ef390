// The pool manager: the only process that assigns warm workers to projects.

import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { removeContainer } from "../docker/docker.ts";
import { engineInfo, missingLimits } from "../docker/engine-info.ts";
import { Failure, messageOf } from "../std/errors.ts";
import { type ContainerEvent, keepFollowing } from "../instance/events.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { readRecords, writeRecord } from "../instance/record.ts";
import { ensureVolume } from "../instance/volumes.ts";
import { pidsLimit } from "../worker/limits.ts";
import { isolatedMode, servicesOf } from "../worker/network.ts";
import { listWorkers } from "../worker/workers.ts";
import { claimTargets, readClaims } from "./claim.ts";
import { Unfit } from "./fit.ts";
import { Claims } from "./claims.ts";
import { listen, type Peer } from "../std/socket-lines.ts";
import { Metrics } from "./metrics.ts";
import { Nsenter } from "../nsenter/container.ts";
import type { DesiredPool } from "./plan.ts";
import { type PoolStatus, type Request, requestSchema } from "./protocol.ts";
import {
  createWarm,
  findWarm,
  isUsed,
  type WarmRecipe,
  type WarmWorker,
} from "./warm.ts";
import { Stock } from "./stock.ts";
import { type Desired, readDesired, writeDesired } from "./desired.ts";

/** How long a claim waits for nsenter to start; a cold spawn takes about as long. */
const nsenterTimeoutMs = 100;

export class PoolManager {
  readonly #instance: Instance;
  readonly #log: Log;
  readonly #metrics = new Metrics();
  readonly #nsenter: Nsenter;
  readonly #stock: Stock;
  readonly #claims: Claims;
  #desired: Desired;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #draining = false;
  #stopped = false;
  /** Why warm claims are impossible; undefined if they are possible. */
  #fault: string | undefined;
  #nsenterStart: Promise<void> | undefined;

  constructor(instance: Instance, log: Log) {
    this.#instance = instance;
    this.#log = log;
    this.#nsenter = new Nsenter(instance);
    this.#desired = readDesired(instance);
    this.#stock = new Stock(
      instance,
      this.#metrics,
      () => this.#wanted(),
      log,
      (_, recipe) => this.#createWarm(recipe),
    );
    this.#claims = new Claims(instance, {
      nsenter: this.#nsenter,
      stock: this.#stock,
      metrics: this.#metrics,
      requireNsenter: () => this.#requireNsenter(),
      nsenterLost: () => void this.#ensureNsenter(),
    }, log);
  }

  /** Runs the pool until `stop` is aborted; the warm workers keep running. */
  async run(stop: AbortSignal): Promise<void> {
    const { home, owner } = this.#instance;
    // The volume may be missing if the parent was started by hand.
    const { plugins } = this.#instance.names.volumes;
    await ensureVolume(this.#instance, plugins);
    await this.#ensureNsenter();
    await this.#recover();
    const listener = await listen(
      home.poolSocket,
      (request, peer) => this.#answer(request, peer),
      { owner },
    );
    this.#log("Listening for requests");
    const events = this.#followEvents(stop);
    void this.#claims.attachMissing();
    this.#tick();
    await events;
    clearTimeout(this.#timer);
    await listener.close();
    this.#nsenter.close();
  }

  /** Creates and removes workers as planned, now and at each check interval. */
  #tick(): void {
    clearTimeout(this.#timer);
    if (this.#fault !== undefined) void this.#ensureNsenter();
    void this.#stock.plan();
    this.#timer = setTimeout(
      () => this.#tick(),
      this.#desired.sizes.checkInterval * 1000,
    );
  }

  async #followEvents(stop: AbortSignal): Promise<void> {
    await keepFollowing(
      this.#instance,
      { actions: ["start", "die", "destroy", "pause"], stop },
      {
        act: (event) => this.#handleEvent(event),
        missed: () => {
          void this.#claims.attachMissing();
          void this.#stock.plan();
        },
        log: this.#log,
      },
    );
  }

  /** Restores the state at the start: keeps complete claims, undoes interrupted ones. */
  async #recover(): Promise<void> {
    const { docker } = this.#instance;
    const workers = await listWorkers(this.#instance);
    const present = new Set(workers.map(({ id }) => id));
    const records = readRecords(this.#instance, this.#log);
    const known = new Set(records.map(({ container }) => container));
    for (const claim of readClaims(this.#instance)) {
      const { container } = claim.record;
      if (!present.has(container)) continue;
      this.#claims.add(claim);
      if (!known.has(container)) writeRecord(this.#instance, claim.record);
      known.add(container);
    }
    for (const { id, name, born } of workers) {
      if (born !== "warm" || known.has(id)) continue;
      if (await isUsed(this.#instance, id)) continue;
      this.#log(`Removing "${name}": its claim was interrupted`);
      await removeContainer(docker, id);
    }
    const { ready, dead } = await findWarm(this.#instance);
    for (const worker of ready) {
      if (await this.#isUnassigned(worker)) this.#stock.add(worker);
      else dead.push(worker);
    }
    await Promise.all(dead.map(({ id }) => removeContainer(docker, id)));
  }

  /** Whether no project is attached in the worker. */
  async #isUnassigned(worker: WarmWorker): Promise<boolean> {
    try {
      return !await this.#nsenter.isAttached(worker, claimTargets);
    } catch {
      return false; // unknown, so the worker is replaced
    }
  }

  async #answer(line: unknown, peer: Peer): Promise<unknown> {
    const parsed = v.safeParse(requestSchema, line);
    if (!parsed.success) {
      throw new Failure(
        "usage",
        `The pool was sent: ${v.summarize(parsed.issues)}`,
        { hint: "After an update, restart the daemon: claudy daemon restart" },
      );
    }
    return await this.#actOn(parsed.output, peer);
  }

  async #actOn(request: Request, peer: Peer): Promise<unknown> {
    switch (request.op) {
      case "claim":
        return await this.#claims.grant(request, peer);
      case "cold":
        this.#metrics.refused(request.reason);
        return {};
      case "ping":
        return {};
      case "status":
        return await this.status();
      case "resize":
        return await this.#resize(request);
      case "scale":
        return await this.#scale(request.warm);
      case "warm":
        return await this.#fill();
      case "cleanup":
        return await this.#cleanUp();
      case "drain":
        return await this.#drain();
      case "stop":
        return await this.#stop();
    }
  }

  /** The desired numbers of warm workers for each image. */
  #wanted(): DesiredPool & Pick<Desired, "network"> {
    const { sizes, network } = this.#desired;
    const idleTimeoutMs = sizes.idleTimeout * 1000;
    const cannotClaim = this.#fault !== undefined && !this.#nsenterStart;
    return this.#draining || cannotClaim
      ? { minWarm: 0, maxWarm: 0, idleTimeoutMs, network }
      : { ...sizes, idleTimeoutMs, network };
  }

  #handleEvent({ action, id, role }: ContainerEvent): void {
    if (role === "nsenter" && ["die", "pause"].includes(action)) {
      return void this.#ensureNsenter();
    }
    if (role === "net" && action !== "destroy") {
      // The network namespace of the warm workers is ending, or has been replaced.
      this.#stock.loseNetwork();
      return void this.#stock.plan();
    }
    if (role !== "worker") return;
    if (action === "start") return void this.#claims.attachAgain(id);
    if (this.#stock.lose(id)) {
      void this.#stock.discard(id);
      void this.#stock.plan();
    }
    if (action === "destroy") this.#claims.forget(id);
  }

  /**
   * Starts nsenter if it does not run; one start at a time. If it fails, the status
   * shows the reason, and all workers are spawned cold.
   */
  #ensureNsenter(): Promise<void> {
    this.#nsenterStart ??= (async () => {
      if (this.#stopped) return;
      try {
        this.#fault = await this.#missingLimits() ??
          await this.#nsenter.ensure("mounts") ??
          (this.#desired.network === "isolated"
            ? await this.#nsenter.ensure("listeners")
            : undefined);
      } catch (error) {
        this.#fault = `nsenter: ${messageOf(error)}`;
      } finally {
        this.#nsenterStart = undefined;
      }
      if (this.#fault !== undefined) {
        this.#log(`Warm claims are unavailable: ${this.#fault}`);
      }
    })();
    return this.#nsenterStart;
  }

  /** The services of an isolated worker are open before it can be claimed. */
  async #createWarm(recipe: WarmRecipe): Promise<WarmWorker> {
    const worker = await createWarm(this.#instance, recipe);
    if (recipe.network === isolatedMode) {
      const { id, pid, mark } = worker;
      const services = servicesOf(this.#instance, "isolated");
      await this.#nsenter.open({ id, pid, mark, services, shared: false });
    }
    return worker;
  }

  /** Why the workers of this engine may not be used; undefined if they may. */
  async #missingLimits(): Promise<string | undefined> {
    const { docker, settings } = this.#instance;
    if (!settings.REQUIRE_LIMITS) return undefined;
    const missing = missingLimits(await engineInfo(docker));
    return missing && `the engine cannot limit ${missing} of containers, and ` +
        "REQUIRE_LIMITS is set";
  }

  /** Throws Unfit if nsenter cannot attach mounts now. */
  async #requireNsenter(): Promise<void> {
    if (this.#nsenterStart) {
      await Promise.race([this.#nsenterStart, sleep(nsenterTimeoutMs)]);
    }
    if (this.#nsenterStart) throw new Unfit("nsenter is being started");
    if (this.#fault !== undefined) throw new Unfit(this.#fault);
  }

  async #resize(
    { sizes, network }: Extract<Request, { op: "resize" }>,
  ): Promise<PoolStatus> {
    const { network: before } = this.#desired;
    this.#desired = writeDesired(this.#instance, true, sizes, network);
    // Isolated workers need more of nsenter.
    if (this.#desired.network !== before) await this.#ensureNsenter();
    await this.#resume();
    this.#tick();
    await this.#stock.plan();
    return await this.status();
  }

  async #scale(warm: number): Promise<{ capped: boolean; minWarm: number }> {
    const { maxWarm } = this.#desired.sizes;
    const minWarm = Math.min(warm, maxWarm);
    this.#desired = writeDesired(this.#instance, true, { minWarm });
    await this.#resume();
    // Removes the surplus now, without waiting for the idle timeout.
    await this.#stock.settle();
    await this.#stock.shrinkTo(minWarm);
    await this.#stock.plan();
    return { capped: minWarm < warm, minWarm };
  }

  /** Fills the pool to its minimum, and waits until it is full. */
  async #fill(): Promise<PoolStatus> {
    await this.#resume();
    await this.#stock.fill();
    return await this.status();
  }

  /** Ends a drain, or a stop if the parent has not ended this process yet. */
  async #resume(): Promise<void> {
    const stopped = this.#stopped;
    this.#stopped = false;
    this.#draining = false;
    if (stopped || this.#fault !== undefined || this.#nsenterStart) {
      await this.#ensureNsenter();
    }
  }

  /** Removes dead warm workers, and those above the minimum. */
  async #cleanUp(): Promise<{ removed: number }> {
    const surplus = await this.#stock.shrinkTo(this.#desired.sizes.minWarm);
    const { dead } = await findWarm(this.#instance);
    for (const { id } of dead) await removeContainer(this.#instance.docker, id);
    return { removed: surplus + dead.length };
  }

  /** Removes the warm workers. None are created until a command resumes the pool. */
  async #drain(): Promise<{ removed: number }> {
    this.#draining = true;
    await this.#stock.settle();
    return { removed: await this.#stock.shrinkTo(0) };
  }

  async #stop(): Promise<{ removed: number }> {
    this.#stopped = true;
    const drained = await this.#drain();
    // Last: the parent ends this process when it reads the new state.
    writeDesired(this.#instance, false);
    return drained;
  }

  async status(): Promise<PoolStatus> {
    const now = Date.now();
    const { settings } = this.#instance;
    const { recipe } = this.#stock;
    const busy = (await listWorkers(this.#instance))
      .filter(({ born, state }) => born === "warm" && state === "running");
    return {
      running: true,
      unavailable: this.#fault ?? null,
      warm: this.#stock.all.map(({ name, id, since }) => ({
        name,
        id,
        ageSeconds: Math.round((now - since) / 1000),
      })),
      creating: this.#stock.creating,
      busy: busy.map(({ name, project }) => ({ name, project })),
      ...this.#desired.sizes,
      network: this.#desired.network,
      profiles: this.#stock.profiles,
      limits: recipe?.limits ?? {
        memoryBytes: settings.WORKER_MEMORY,
        cpus: settings.WORKER_CPUS,
        pids: pidsLimit(settings),
      },
      metrics: {
        claims: { warm: this.#metrics.warm, cold: this.#metrics.cold },
        latencyMs: this.#metrics.latencyMs,
        creations: this.#metrics.creations,
        failures: this.#metrics.failures,
        lastFailure: this.#metrics.lastFailure,
      },
    };
  }
}
