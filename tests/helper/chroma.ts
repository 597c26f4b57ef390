// Test data in ChromaDB for the migration tests: "fill NAME=COUNT…" adds vectors, "query"
// prints the nearest neighbours of fixed vectors.

import process from "node:process";

const base = "http://127.0.0.1:8000/api/v2/tenants/default_tenant/databases" +
  "/default_database/collections";

const vector = (seed: number) =>
  Array.from({ length: 8 }, (_, at) => Math.sin((seed + 1) * (at + 1)));

async function ask(path: string, body?: unknown) {
  const response = await fetch(base + path, {
    method: body === undefined ? "GET" : "POST",
    headers: { "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return JSON.parse(text);
}

const [command, ...words] = process.argv.slice(2);
if (command === "fill") {
  for (const word of words) {
    const [name = "", count = "0"] = word.split("=");
    const { id } = await ask("", { name, get_or_create: true });
    const from = await ask(`/${id}/count`);
    for (let at = from; at < from + Number(count); at += 500) {
      const size = Math.min(500, from + Number(count) - at);
      const seeds = Array.from({ length: size }, (_, index) => at + index);
      await ask(`/${id}/add`, {
        ids: seeds.map((seed) => `${name}-${seed}`),
        embeddings: seeds.map(vector),
        documents: seeds.map((seed) => `document ${seed} of ${name}`),
        metadatas: seeds.map((seed) => ({ seed })),
      });
    }
  }
}
const collections = await ask("");
const found = await Promise.all(
  collections.map(async ({ id, name }: { id: string; name: string }) => {
    const { ids, documents, distances } = await ask(`/${id}/query`, {
      query_embeddings: [vector(7), vector(70), vector(700)],
      n_results: 5,
      include: ["documents", "distances"],
    });
    return {
      name,
      count: await ask(`/${id}/count`),
      ids,
      documents,
      distances,
    };
  }),
);
found.sort((a, b) => a.name < b.name ? -1 : 1);
console.log(JSON.stringify(found));
