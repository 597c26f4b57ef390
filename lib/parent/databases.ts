// A database of ChromaDB for each project. Exists as soon as the project has a worker.

import { request } from "node:http";
import * as v from "valibot";
import { messageOf } from "../std/errors.ts";
import {
  type DatabaseAnswer,
  databaseRequest,
} from "../gateway/worker-database.ts";
import { keepFollowing } from "../instance/events.ts";
import type { Instance } from "../instance/instance.ts";
import { readRecords } from "../instance/record.ts";
import { serviceUsers } from "../instance/service-users.ts";
import { projectDatabase } from "../project/project.ts";
import type { Log } from "../std/log.ts";
import { listen } from "../std/socket-lines.ts";
import { chromadbAddress } from "./chromadb.ts";

/** Between an event and the worker's record, which is written after it. */
const settleMs = 200;

export class Databases {
  readonly #instance: Instance;
  readonly #log: Log;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(instance: Instance, log: Log) {
    this.#instance = instance;
    this.#log = log;
  }

  /**
   * Creates the databases of workers that are started or claimed, and answers at
   * run/ways/databases.sock, until `stop` is aborted.
   */
  async keep(stop: AbortSignal): Promise<void> {
    const { home, owner } = this.#instance;
    const listener = await listen(
      home.databasesSocket,
      (line) => this.#answer(line),
      { owner: { uid: serviceUsers.ports, gid: owner.gid } },
    );
    const soon = () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.createAll(), settleMs);
    };
    soon();
    // A warm worker is renamed when it is claimed.
    await keepFollowing(
      this.#instance,
      { actions: ["start", "rename"], role: "worker", stop },
      { act: soon, missed: soon, log: this.#log },
    );
    clearTimeout(this.#timer);
    await listener.close();
  }

  /** Creates the databases of all workers' projects. Call it when ChromaDB answers. */
  async createAll(): Promise<void> {
    const projects = readRecords(this.#instance)
      .map(({ project }) => project.path);
    try {
      for (const project of new Set(projects)) await this.#create(project);
    } catch {
      // ChromaDB does not answer yet.
    }
  }

  async #answer(line: unknown): Promise<DatabaseAnswer> {
    const { container } = v.parse(databaseRequest, line);
    const record = readRecords(this.#instance)
      .find((record) => record.container === container);
    if (!record) return { database: null };
    return { database: await this.#create(record.project.path) };
  }

  /** Returns the name of the project's database. */
  async #create(project: string): Promise<string> {
    const name = projectDatabase(project);
    try {
      const status = await createDatabase(
        this.#instance.settings.CHROMADB_PORT,
        name,
      );
      // 409: it exists.
      if (status !== 200 && status !== 409) {
        this.#log(`Cannot create the database ${name}: status ${status}`);
      }
    } catch (error) {
      throw new Error(`ChromaDB does not answer: ${messageOf(error)}`);
    }
    return name;
  }
}

function createDatabase(
  port: number,
  name: string,
): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request({
      host: chromadbAddress,
      port,
      method: "POST",
      path: "/api/v2/tenants/default_tenant/databases",
      headers: { "content-type": "application/json" },
      agent: false,
      timeout: 5000,
    }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on("timeout", () => asked.destroy(new Error("no answer in time")));
    asked.on("error", reject);
    asked.end(JSON.stringify({ name }));
  });
}
