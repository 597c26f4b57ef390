// The warm workers that can be claimed, by image. Creates and removes workers to
// reach the desired numbers.

import { setTimeout as sleep } from "node:timers/promises";
import { namespaceStart, removeContainer } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import { profileImage } from "../image/profiles.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { workersNetwork } from "../instance/container.ts";
import type { WorkerNetwork } from "../instance/settings.ts";
import { isolatedMode } from "../worker/network.ts";
import type { Metrics } from "./metrics.ts";
import { type DesiredPool, planPool } from "./plan.ts";
import {
  createWarm,
  type WarmNetwork,
  type WarmRecipe,
  warmRecipe,
  type WarmWorker,
} from "./warm.ts";

/** How long a command waits for workers to be created. */
const creationMs = 20_000;

/** Pause after a failed creation, doubled each time up to a maximum. */
const firstPauseMs = 1000;
const lastPauseMs = 60_000;

export interface StockedProfile {
  name: string;
  image: string;
  /** False if the image is not built. */
  present: boolean;
  warm: number;
}

export class Stock {
  readonly #instance: Instance;
  readonly #metrics: Metrics;
  /** Desired numbers for each image; none if the stock is to be emptied. */
  readonly #wanted: () => DesiredPool & { network: WorkerNetwork };
  readonly #log: Log;
  readonly #make: typeof createWarm;
  /** Workers that can be claimed. */
  readonly #free = new Map<string, WarmWorker>();
  /** How to create each image's workers; undefined before the first plan. */
  #recipes: Map<string, WarmRecipe> | undefined;
  /** Configured images that are not built. */
  readonly #missing = new Set<string>();
  /** Images of the workers that are being created. */
  readonly #creating: string[] = [];
  #networkDown = false;
  #pauseMs = 0;
  #pausedUntil = 0;
  #planning: Promise<void> = Promise.resolve();

  constructor(
    instance: Instance,
    metrics: Metrics,
    wanted: () => DesiredPool & { network: WorkerNetwork },
    log: Log,
    make: typeof createWarm = createWarm,
  ) {
    this.#make = make;
    this.#instance = instance;
    this.#metrics = metrics;
    this.#wanted = wanted;
    this.#log = log;
  }

  get all(): WarmWorker[] {
    return [...this.#free.values()];
  }

  get creating(): number {
    return this.#creating.length;
  }

  get profiles(): StockedProfile[] {
    return this.#images().map(({ name, image }) => ({
      name,
      image,
      present: !this.#missing.has(image),
      warm: this.#freeOf(image).length,
    }));
  }

  /** Any recipe: limits and network are the same for all. */
  get recipe(): WarmRecipe | undefined {
    return this.#recipes?.values().next().value;
  }

  /** False before the first plan. */
  get begun(): boolean {
    return this.#recipes !== undefined;
  }

  /** Whether the network namespace of the warm workers has ended. */
  get networkDown(): boolean {
    return this.#networkDown;
  }

  /** Hands out no present worker until the next plan. */
  loseNetwork(): void {
    this.#networkDown = true;
  }

  recipeOf(image: string): WarmRecipe | undefined {
    return this.#recipes?.get(image);
  }

  add(worker: WarmWorker): void {
    this.#free.set(worker.id, worker);
  }

  /** Takes the oldest worker that is not stale. */
  take({ inputs }: WarmRecipe): WarmWorker | undefined {
    const found = this.all.find((worker) => worker.inputs === inputs);
    if (found) this.#free.delete(found.id);
    return found;
  }

  /** Forgets a worker that has ended by itself. Returns whether it was in stock. */
  lose(id: string): boolean {
    return this.#free.delete(id);
  }

  /** Removes a lost worker. It was never used, so there is no log to keep. */
  async discard(id: string): Promise<void> {
    try {
      await removeContainer(this.#instance.docker, id);
    } catch (error) {
      this.#log(`Cannot remove a warm worker that ended: ${messageOf(error)}`);
    }
  }

  /** Creates and removes workers as desired; one run at a time. */
  plan(): Promise<void> {
    this.#planning = this.#planning.then(() => this.#planOnce()).catch(
      (error) => this.#log(`Cannot plan the pool: ${messageOf(error)}`),
    );
    return this.#planning;
  }

  /** Fills the stock to its minimum, and waits until it is full. */
  async fill(): Promise<void> {
    this.#pausedUntil = 0;
    await this.plan();
    await this.settle();
  }

  /** Waits until no worker is being created. */
  async settle(): Promise<void> {
    const deadline = Date.now() + creationMs;
    while (this.creating > 0 && Date.now() < deadline) await sleep(20);
  }

  /** Removes the workers above `count` of each image. Returns how many it removed. */
  async shrinkTo(count: number): Promise<number> {
    const images = new Set(this.all.map(({ image }) => image));
    const surplus = [...images].flatMap((image) => {
      const free = this.#freeOf(image);
      return free.slice(0, Math.max(free.length - count, 0));
    });
    await this.#remove(surplus.map(({ id }) => id));
    return surplus.length;
  }

  async #planOnce(): Promise<void> {
    const recipes = await this.#readRecipes();
    this.#recipes = recipes;
    const now = Date.now();
    const wanted = this.#wanted();
    // Workers of images that are no longer configured.
    const remove = this.all.filter(({ image }) => !recipes.has(image))
      .map(({ id }) => id);
    for (const recipe of recipes.values()) {
      const { image, inputs } = recipe;
      const creating = this.#creating.filter((other) => other === image).length;
      const plan = planPool({
        warm: this.#freeOf(image).map((worker) => ({
          id: worker.id,
          idleMs: now - worker.since,
          stale: worker.inputs !== inputs,
        })),
        creating,
        creatingOthers: this.creating - creating,
        pauseMs: Math.max(this.#pausedUntil - now, 0),
      }, wanted);
      for (let count = 0; count < plan.create; count++) {
        void this.#create(recipe);
      }
      remove.push(...plan.remove);
    }
    await this.#remove(remove);
    if (remove.length > 0 && wanted.maxWarm > 0) void this.plan();
  }

  /** Recipes of the configured images that are built. */
  async #readRecipes(): Promise<Map<string, WarmRecipe>> {
    const recipes = new Map<string, WarmRecipe>();
    const network = await this.#network();
    this.#networkDown = network === undefined;
    if (!network) return recipes;
    for (const { image } of this.#images()) {
      const log = this.#log;
      const recipe = await warmRecipe(this.#instance, image, network, log);
      if (recipe) {
        recipes.set(image, recipe);
        this.#missing.delete(image);
      } else if (!this.#missing.has(image)) {
        this.#missing.add(image);
        log(`There is no image ${image}; it gets no warm workers`);
      }
    }
    return recipes;
  }

  /** Undefined if the net container does not run. */
  async #network(): Promise<WarmNetwork | undefined> {
    const { docker, names } = this.#instance;
    if (this.#wanted().network === "isolated") {
      return { mode: isolatedMode, since: "" };
    }
    const mode = workersNetwork(this.#instance);
    const since = await namespaceStart(docker, names.net);
    return since === undefined ? undefined : { mode, since };
  }

  #images(): { name: string; image: string }[] {
    return this.#instance.settings.WARM_PROFILES.map((name) => ({
      name,
      image: profileImage(this.#instance, { name, packages: [] }),
    }));
  }

  #freeOf(image: string): WarmWorker[] {
    return this.all.filter((worker) => worker.image === image);
  }

  async #create(recipe: WarmRecipe): Promise<void> {
    this.#creating.push(recipe.image);
    try {
      this.add(await this.#make(this.#instance, recipe));
      this.#metrics.creations++;
      this.#pauseMs = 0;
    } catch (error) {
      const doubled = Math.max(this.#pauseMs * 2, firstPauseMs);
      this.#pauseMs = Math.min(doubled, lastPauseMs);
      this.#pausedUntil = Date.now() + this.#pauseMs;
      setTimeout(() => void this.plan(), this.#pauseMs);
      this.#metrics.failed(messageOf(error));
      this.#log(
        `Cannot create a warm worker: ${
          messageOf(error)
        }; retrying in ${this.#pauseMs} ms`,
      );
    } finally {
      this.#creating.splice(this.#creating.indexOf(recipe.image), 1);
    }
    await this.plan();
  }

  async #remove(ids: string[]): Promise<void> {
    for (const id of ids) this.#free.delete(id);
    await Promise.all(
      ids.map((id) => removeContainer(this.#instance.docker, id)),
    );
  }
}
