// The journal of a migration or rollback: records which steps have begun and which are
// done, so that a killed run can be resumed.

import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";
import type { Instance } from "./instance.ts";
import { writeAtomic } from "../std/owned.ts";
import type { HomePaths } from "./paths.ts";

const journalSchema = v.object({
  version: v.literal(1),
  kind: v.picklist(["migrate", "rollback"]),
  /** Names the backup: UTC, as 20261121T130000Z. */
  stamp: v.pipe(v.string(), v.regex(/^\d{8}T\d{6}Z(-\d+)?$/)),
  parts: v.array(v.string()),
  skipBackup: v.boolean(),
  /** For a migration: sessions inherit what runs programs, too. */
  inheritHooks: v.optional(v.boolean()),
  keepVolumes: v.boolean(),
  /** For a rollback: the backup that is restored. */
  backup: v.nullable(v.string()),
  /** For a rollback: parts whose volumes contain migrated data. */
  migrated: v.optional(v.array(v.string())),
  /** Volumes that this run has created. */
  made: v.array(v.string()),
  steps: v.record(v.string(), v.picklist(["begun", "done"])),
});

export type JournalState = v.InferOutput<typeof journalSchema>;

type Home = Pick<Instance, "home" | "owner">;

export class Journal {
  readonly #home: Home;
  state: JournalState;

  constructor(home: Home, state: JournalState) {
    this.#home = home;
    this.state = state;
  }

  isDone(step: string): boolean {
    return this.state.steps[step] === "done";
  }

  hasBegun(step: string): boolean {
    return this.state.steps[step] !== undefined;
  }

  /** Runs a step unless it is done; the step must be idempotent. */
  async step(name: string, run: () => unknown): Promise<void> {
    if (this.isDone(name)) return;
    this.note({ steps: { ...this.state.steps, [name]: "begun" } });
    await run();
    this.note({ steps: { ...this.state.steps, [name]: "done" } });
  }

  /** Makes the named steps run again. */
  forget(names: string[]): void {
    const steps = { ...this.state.steps };
    for (const name of names) delete steps[name];
    this.note({ steps });
  }

  forgetAllBut(names: string[]): void {
    const steps = Object.keys(this.state.steps);
    this.forget(steps.filter((name) => !names.includes(name)));
  }

  note(change: Partial<JournalState>): void {
    this.state = { ...this.state, ...change };
    const { home, owner } = this.#home;
    writeAtomic(
      pathOf(home),
      JSON.stringify(this.state, null, 2) + "\n",
      owner,
    );
  }

  remove(): void {
    rmSync(pathOf(this.#home.home), { force: true });
  }
}

function pathOf(home: HomePaths): string {
  return join(home.migration, "journal.json");
}

/** The journal of an unfinished migration or rollback; undefined if there is none. */
export function readJournal(instance: Home): Journal | undefined {
  const path = pathOf(instance.home);
  if (!existsSync(path)) return undefined;
  try {
    const state = JSON.parse(readFileSync(path, "utf8"));
    return new Journal(instance, v.parse(journalSchema, state));
  } catch (error) {
    throw new Failure("failed", `Cannot read the journal ${path}`, {
      cause: error,
      hint: "Nothing was removed. The data is in the volumes, in " +
        `${instance.home.home} and in ${instance.home.backups}.`,
    });
  }
}

/** What each kind of move is called. */
export const moveName = { migrate: "migration", rollback: "rollback" } as const;

/** The journal of this kind; throws a `busy` Failure if the other kind is unfinished. */
export function readJournalOf(
  instance: Home,
  kind: JournalState["kind"],
): Journal | undefined {
  const journal = readJournal(instance);
  if (!journal || journal.state.kind === kind) return journal;
  // The migration's volumes are complete and in use, so it can be rolled back.
  if (kind === "rollback" && journal.hasBegun("start")) return undefined;
  const other = journal.state.kind;
  throw new Failure("busy", `A ${moveName[other]} has not finished`, {
    hint: `Resume it: hal9000-${other}`,
  });
}

/** Throws while a move is copying data: ChromaDB must not open incomplete data. */
export function refuseWhileMoving(instance: Home): void {
  const journal = readJournal(instance);
  if (!journal || journal.hasBegun("start")) return;
  const { kind } = journal.state;
  throw new Failure("busy", `A ${moveName[kind]} has not finished`, {
    hint: `Resume it: hal9000-${kind}${
      kind === "migrate" ? ", or undo it: hal9000-migrate --abort" : ""
    }`,
  });
}

/** Formats a time as "20261121T130000Z". */
export function stampOf(time: Date): string {
  return time.toISOString().replace(/[-:]|\.\d+/g, "");
}
