// Lists the collections of a ChromaDB directory from its SQLite file, or of a
// running ChromaDB.

import { existsSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";

export const collectionsSchema = v.array(v.object({
  name: v.string(),
  count: v.number(),
}));

export type Collections = v.InferOutput<typeof collectionsSchema>;

/** Works with the tables of ChromaDB 0.4 to 1.x. */
const query = `
  SELECT collections.name AS name, COUNT(embeddings.id) AS count
  FROM collections
  LEFT JOIN segments
    ON segments.collection = collections.id AND segments.scope = 'METADATA'
  LEFT JOIN embeddings ON embeddings.segment_id = segments.id
  GROUP BY collections.id ORDER BY collections.name`;

/**
 * Collections of a stopped ChromaDB, with their counts. Null if they cannot be
 * read: unknown tables, or a pending journal of a killed writer.
 */
export async function keptCollections(
  directory: string,
): Promise<Collections | null> {
  const file = join(directory, "chroma.sqlite3");
  if (!existsSync(file)) return [];
  if (hasJournal(file)) return null;
  return v.parse(v.nullable(collectionsSchema), await answerOf(file, query));
}

/** Whether the SQLite file is damaged; not checked with a pending journal. */
export async function isDamaged(directory: string): Promise<boolean> {
  const file = join(directory, "chroma.sqlite3");
  if (!existsSync(file) || hasJournal(file)) return false;
  const sound = [{ quick_check: "ok" }];
  const answer = await answerOf(file, "PRAGMA quick_check");
  return JSON.stringify(answer) !== JSON.stringify(sound);
}

function hasJournal(file: string): boolean {
  return ["-wal", "-journal"].some((suffix) => existsSync(file + suffix));
}

/** Rows of a database; null if it cannot be queried. */
async function answerOf(file: string, query: string): Promise<unknown> {
  const { DatabaseSync } = await import("node:sqlite");
  let database: InstanceType<typeof DatabaseSync> | undefined;
  try {
    database = new DatabaseSync(file, { readOnly: true });
    return database.prepare(query).all();
  } catch {
    return null;
  } finally {
    database?.close();
  }
}

const servedSchema = v.array(v.object({ id: v.string(), name: v.string() }));

/** Collections of the ChromaDB that listens on a port of 127.0.0.1. */
export async function servedCollections(port: number): Promise<Collections> {
  const base = `http://127.0.0.1:${port}/api/v2/tenants/default_tenant` +
    "/databases/default_database/collections";
  const ask = async (path: string) => {
    const response = await fetch(base + path);
    if (!response.ok) throw new Error(`ChromaDB: ${await response.text()}`);
    return await response.json();
  };
  const served = v.parse(servedSchema, await ask(""));
  const counted = await Promise.all(served.map(async ({ id, name }) => ({
    name,
    count: v.parse(v.number(), await ask(`/${id}/count`)),
  })));
  return counted.sort((a, b) => a.name < b.name ? -1 : 1);
}
