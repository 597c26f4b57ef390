// What isolated workers may ask of ChromaDB: to use the database of their own project, and
// the one that all projects share. Everything else is refused, whether or not ChromaDB has
// it.

import { type IncomingMessage, request as requestUpstream } from "node:http";
import type { Socket } from "node:net";
import type { Origin } from "../../std/origin.ts";
import type { Admit, Place, Refusal } from "./bounded-proxy.ts";

const databases = "/api/v2/tenants/default_tenant/databases";
export const sharedDatabase = "default_database";

/** Whether a request may be passed on, if its collection is in its database. */
export type Verdict =
  | { refused: string }
  | { refused?: undefined; collection?: string };

const name = "[A-Za-z0-9][A-Za-z0-9._-]*";
const uuid = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";

/** Requests that concern no database. */
const general =
  /^\/api\/v2(\/(heartbeat|healthcheck|version|pre-flight-checks|auth\/identity|tenants\/default_tenant))?$/;

/** Requests within a database; their paths follow its name. */
const allowed: [methods: string[], path: RegExp][] = [
  [["GET"], /^$/],
  [["GET", "POST"], /^\/collections$/],
  [["GET"], /^\/collections_count$/],
  [["GET", "DELETE"], new RegExp(`^/collections/${name}$`)],
  [["GET"], new RegExp(`^/collections/by-id/${uuid}$`)],
];

/**
 * The same, for a collection by its id. ChromaDB finds it in any database, whichever the
 * path names.
 */
const allowedById: [methods: string[], path: RegExp][] = [
  [["PUT"], new RegExp(`^/collections/(${uuid})$`)],
  [
    ["POST"],
    new RegExp(
      `^/collections/(${uuid})/(?:add|update|upsert|delete|get|query|search)$`,
    ),
  ],
  [
    ["GET"],
    new RegExp(`^/collections/(${uuid})/(?:count|indexing_status|fork_count)$`),
  ],
];

const inDatabase = new RegExp(`^${databases}/(${name})(/.*)?$`);

/** Judges a request of a worker that may use the database `own`, or none of its own. */
export function judge(
  { method = "", url = "" }: Pick<IncomingMessage, "method" | "url">,
  own: string | null,
): Verdict {
  const path = url.replace(/\?.*$/s, "");
  if (method === "GET" && general.test(path)) return {};
  const [, database = "", rest = ""] = inDatabase.exec(path) ?? [];
  if (database !== sharedDatabase && (database === "" || database !== own)) {
    return { refused: refusalOf(own) };
  }
  const matches = ([methods, form]: [string[], RegExp]) =>
    methods.includes(method) && form.test(rest);
  if (allowed.some(matches)) return {};
  const [, form] = allowedById.find(matches) ?? [];
  const collection = form?.exec(rest)?.[1];
  return collection === undefined
    ? { refused: refusalOf(own) }
    : { collection };
}

function refusalOf(own: string | null): string {
  const usable = own === null ? sharedDatabase : `${own} and ${sharedDatabase}`;
  return "An isolated worker may use collections in " +
    `${usable} of default_tenant, and nothing else`;
}

/** Collections that were found in a database are remembered: they never change it. */
const maxRemembered = 4096;

/**
 * Admits requests of isolated workers only to their own database and the shared one, and
 * all requests of the shared network. `chromadb` is ChromaDB's address.
 */
export function admitToOwnDatabase(
  chromadb: Place,
  { originOf, databaseOf }: {
    originOf: (socket: Socket) => Origin;
    databaseOf: (container: string) => Promise<string | null>;
  },
): Admit {
  const known = new Remembered<true>();
  const own = new Remembered<string>();
  return async (request): Promise<Refusal | undefined> => {
    const container = originOf(request.socket);
    if (container === null) return undefined;
    const database = own.get(container) ?? await databaseOf(container);
    if (database !== null) own.add(container, database);
    const { refused, collection } = {
      collection: undefined,
      ...judge(request, database),
    };
    if (refused !== undefined) return { status: 403, why: refused };
    if (collection === undefined) return undefined;
    const path = (request.url ?? "").replace(
      /\/collections\/.*$/s,
      `/collections/by-id/${collection}`,
    );
    if (known.get(path)) return undefined;
    const status = await statusOf(chromadb, path);
    if (status !== 200) {
      return { status: 404, why: `Collection [${collection}] does not exist` };
    }
    known.add(path, true);
    return undefined;
  };
}

class Remembered<T> extends Map<string, T> {
  add(key: string, value: T): void {
    const [oldest] = this.keys();
    if (this.size >= maxRemembered && oldest !== undefined) this.delete(oldest);
    this.set(key, value);
  }
}

function statusOf(
  place: Place,
  path: string,
): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = requestUpstream(
      { ...place, path, agent: false, timeout: 10_000 },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    );
    asked.on("timeout", () => asked.destroy(new Error("no answer in time")));
    asked.on("error", reject);
    asked.end();
  });
}
