// Answers permission requests from the dashboard: only the one that is shown, only while
// the session asks for it, and not before it could be read.

import { join } from "node:path";
import { sessionHome } from "../../home/worker-home.ts";
import type { Instance } from "../../instance/instance.ts";
import { readCliState } from "../../session/activity.ts";
import {
  answerRequest,
  permissionPrompt,
  type PermissionRequest,
  readRequest,
} from "../../session/permission.ts";
import { messageOf } from "../../std/errors.ts";
import type { Log } from "../../std/log.ts";
import type { Row } from "./table.ts";

/** A key that is pressed earlier was meant for what was shown before. */
const minShownMs = 500;

interface Shown {
  worker: string;
  request: PermissionRequest;
  /** Since when all of it is shown; undefined if it is not. */
  sinceMs: number | undefined;
}

type Asking = Pick<Row, "id" | "name" | "session" | "state" | "waitingFor">;

export class Answers {
  readonly #instance: Pick<Instance, "docker" | "home">;
  readonly #log: Log;
  #shown: Shown | undefined;
  #latest: Asking | undefined;
  #isAnswering = false;

  constructor(instance: Pick<Instance, "docker" | "home">, log: Log) {
    this.#instance = instance;
    this.#log = log;
  }

  requestOf(worker: string | undefined): PermissionRequest | undefined {
    return this.#shown?.worker === worker ? this.#shown?.request : undefined;
  }

  /** Called after each drawing. */
  noteShown(isWhole: boolean): void {
    if (!this.#shown) return;
    this.#shown.sinceMs = isWhole
      ? this.#shown.sinceMs ?? Date.now()
      : undefined;
  }

  /** Reads the request of the selected session, if it asks for a permission. */
  async read(row: Asking | undefined): Promise<void> {
    if (this.#isAnswering) return;
    this.#latest = row;
    const request = row && isAsking(row)
      ? await readRequest(this.#instance.docker, row.id).catch(() => undefined)
      : undefined;
    // A later call may be for another session.
    if (this.#latest !== row) return;
    if (!row || !request) {
      this.#shown = undefined;
    } else if (this.requestOf(row.id)?.dialog !== request.dialog) {
      this.#shown = { worker: row.id, request, sinceMs: undefined };
    }
  }

  /** Returns what was done, or why nothing was. */
  async give(row: Asking, isAllowed: boolean): Promise<string> {
    const { id, name } = row;
    const shown = this.#shown;
    if (this.#isAnswering) return "";
    if (shown?.worker !== id) {
      return `"${name}" shows no permission request here; press Enter to open it`;
    }
    if (shown.sinceMs === undefined) {
      return "The request is longer than this screen; press Enter to open it";
    }
    if (Date.now() - shown.sinceMs < minShownMs) {
      return "The request has only just appeared; read it, then press the key again";
    }
    this.#shown = undefined;
    this.#isAnswering = true;
    try {
      const isGiven = this.#stillAsks(row) &&
        await answerRequest(
          this.#instance.docker,
          id,
          shown.request,
          isAllowed,
        );
      if (!isGiven) {
        return `"${name}" no longer asks this; nothing was answered`;
      }
      const text = `${isAllowed ? "Allowed" : "Denied"} in "${name}"`;
      this.#log(text);
      return text;
    } catch (error) {
      return `Cannot answer "${name}": ${messageOf(error)}`;
    } finally {
      this.#isAnswering = false;
    }
  }

  /** From the session's files, which may be newer than the row. */
  #stillAsks({ session }: Asking): boolean {
    if (session === null) return false;
    const { home } = this.#instance.home;
    const state = readCliState(join(home, sessionHome(session)));
    return state !== undefined &&
      isAsking({ state: state.activity, waitingFor: state.waitingFor ?? "" });
  }
}

function isAsking({ state, waitingFor }: Pick<Row, "state" | "waitingFor">) {
  return state === "waiting" && waitingFor === permissionPrompt;
}
