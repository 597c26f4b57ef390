// The warm workers that can be claimed: how many there are of which image, and
// what is done to bring that nearer to what is wanted.

import { setTimeout as sleep } from "node:timers/promises";
import { namespaceStart, removeContainer } from "../docker/docker.ts";
import { messageOf } from "../std/errors.ts";
import { profileImage } from "../image/profiles.ts";
import type { Instance } from "../instance/instance.ts";
import type { Log } from "../std/log.ts";
import { workersNetwork } from "../instance/container.ts";
import type { Metrics } from "./metrics.ts";
import { type DesiredPool, planPool } from "./plan.ts";
import {
  createWarm,
  type WarmNetwork,
  type WarmRecipe,
  warmRecipe,
  type WarmWorker,
} from "./warm.ts";

/** A command does not wait longer for workers to be made. */
const creationMs = 20_000;

/** Pauses after the engine refused to make a worker, doubled each time. */
const firstPauseMs = 1000;
const lastPauseMs = 60_000;

export interface StockedProfile {
  name: string;
  image: string;
  /** False where that image is not there. */
  present: boolean;
  warm: number;
}

export class Stock {
  readonly #instance: Instance;
  readonly #metrics: Metrics;
  /** For each image; none where it is to be emptied. */
  readonly #wanted: () => DesiredPool;
  readonly #log: Log;
  readonly #make: typeof createWarm;
  /** Those that can be claimed. Nobody else takes one away. */
  readonly #free = new Map<string, WarmWorker>();
  /** What is made, by image; undefined before that was looked at. */
  #recipes: Map<string, WarmRecipe> | undefined;
  /** Images that are wanted and are not there. */
  readonly #missing = new Set<string>();
  /** The image of each that is being made. */
  readonly #creating: string[] = [];
  #networkDown = false;
  #pauseMs = 0;
  #pausedUntil = 0;
  #planning: Promise<void> = Promise.resolve();

  constructor(
    instance: Instance,
    metrics: Metrics,
    wanted: () => DesiredPool,
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

  /** Any of them: limits and network are those of all. */
  get recipe(): WarmRecipe | undefined {
    return this.#recipes?.values().next().value;
  }

  /** False before it was looked at what can be made. */
  get begun(): boolean {
    return this.#recipes !== undefined;
  }

  /** Whether the namespace that the workers joined has ended. */
  get networkDown(): boolean {
    return this.#networkDown;
  }

  /** Hands out none of those that are there, until the next plan. */
  loseNetwork(): void {
    this.#networkDown = true;
  }

  recipeOf(image: string): WarmRecipe | undefined {
    return this.#recipes?.get(image);
  }

  add(worker: WarmWorker): void {
    this.#free.set(worker.id, worker);
  }

  /** The one that has waited longest, of those like one that were made now. */
  take({ inputs }: WarmRecipe): WarmWorker | undefined {
    const found = this.all.find((worker) => worker.inputs === inputs);
    if (found) this.#free.delete(found.id);
    return found;
  }

  /** Of one that has ended by itself; gives whether it was one of these. */
  lose(id: string): boolean {
    return this.#free.delete(id);
  }

  /** Removes one that was lost. Nobody was in it: there is no log to keep. */
  async discard(id: string): Promise<void> {
    try {
      await removeContainer(this.#instance.docker, id);
    } catch (error) {
      this.#log(`Cannot remove a warm worker that ended: ${messageOf(error)}`);
    }
  }

  /** Brings the stock nearer to what is wanted; one at a time. */
  plan(): Promise<void> {
    this.#planning = this.#planning.then(() => this.#planOnce()).catch(
      (error) => this.#log(`Cannot plan the pool: ${messageOf(error)}`),
    );
    return this.#planning;
  }

  /** Fills up to the minimum, and waits for that. */
  async fill(): Promise<void> {
    this.#pausedUntil = 0;
    await this.plan();
    await this.settle();
  }

  /** Waits until none is being made. */
  async settle(): Promise<void> {
    const deadline = Date.now() + creationMs;
    while (this.creating > 0 && Date.now() < deadline) await sleep(20);
  }

  /** Removes what is above so many of each image; gives how many that were. */
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
    // Of an image that is no longer wanted.
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

  /** Of the images that are wanted, those that are there. */
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
        log(`There is no image ${image} to keep warm`);
      }
    }
    return recipes;
  }

  /** Undefined where the container that holds it does not run. */
  async #network(): Promise<WarmNetwork | undefined> {
    const { docker, names } = this.#instance;
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
        `Cannot make a warm worker: ${
          messageOf(error)
        }; trying again in ${this.#pauseMs} ms`,
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
