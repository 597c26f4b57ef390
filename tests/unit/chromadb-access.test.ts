// What isolated workers may ask of ChromaDB.

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  admitToOwnDatabase,
  judge,
} from "../../lib/gateway/services/chromadb-access.ts";

const own = "claudy-app-12345678";
const tenant = "/api/v2/tenants/default_tenant";
const mine = `${tenant}/databases/${own}`;
const shared = `${tenant}/databases/default_database`;
const other = `${tenant}/databases/claudy-web-87654321`;
const id = "56975dd9-861b-4724-852b-de7ebf110665";

const passed = [
  "GET /api/v2",
  "GET /api/v2/heartbeat",
  "GET /api/v2/version",
  "GET /api/v2/pre-flight-checks",
  "GET /api/v2/auth/identity",
  `GET ${tenant}`,
  `GET ${mine}`,
  `GET ${shared}`,
  `GET ${mine}/collections?limit=10&offset=0`,
  `POST ${mine}/collections`,
  `POST ${shared}/collections`,
  `GET ${mine}/collections_count`,
  `GET ${mine}/collections/my.notes_2`,
  `DELETE ${mine}/collections/notes`,
  `GET ${mine}/collections/by-id/${id}`,
];

const passedById = [
  `PUT ${mine}/collections/${id}`,
  ...["add", "update", "upsert", "delete", "get", "query", "search"].map(
    (what) => `POST ${shared}/collections/${id}/${what}`,
  ),
  `GET ${mine}/collections/${id}/count?read_level=x`,
];

const refused = [
  // Another project's database, and all of them.
  `GET ${other}/collections`,
  `POST ${other}/collections/${id}/get`,
  `DELETE ${other}`,
  `DELETE ${mine}`,
  `DELETE ${shared}`,
  `GET ${tenant}/databases`,
  `POST ${tenant}/databases`,
  "POST /api/v2/reset",
  "GET /api/v2/reset",
  // Tenants.
  "POST /api/v2/tenants",
  `PATCH ${tenant}`,
  "GET /api/v2/tenants/other",
  `GET ${mine.replace("default_tenant", "other")}/collections`,
  `GET /api/v2/collections/default_tenant:claudy-web-87654321:notes`,
  // Other forms of paths.
  "GET /api/v1/collections",
  "POST /api/v1/reset",
  `GET ${mine}/../claudy-web-87654321/collections`,
  `GET ${mine}/collections/../../claudy-web-87654321/collections`,
  `GET ${mine}/./collections`,
  `GET ${mine}//collections`,
  `GET /${mine}/collections`,
  `GET ${mine}/collections/`,
  `GET ${mine.replace("claudy", "%63laudy")}/collections`,
  `GET ${mine}%2F..%2Fclaudy-web-87654321/collections`,
  `GET ${mine}/collections/n%2e`,
  `GET ${mine}/collections/..`,
  `GET ${mine}/collections#/../../x`,
  `GET ${mine};x/collections`,
  `GET ${mine}\\..\\claudy-web-87654321/collections`,
  `GET http://localhost:8000${mine}/collections`,
  `GET http://localhost:8000${other}/collections`,
  `GET ${mine.toUpperCase()}/collections`,
  `GET ${mine}\n/collections`,
  // What no client needs, or ChromaDB has added later.
  `POST ${mine}/collections/${id}/fork`,
  `POST ${mine}/collections/${id}/functions/attach`,
  `POST ${mine}/collections/${id}/anything`,
  `POST ${mine}/collections/notes/get`,
  `POST ${mine}/collections/${id.toUpperCase()}/get`,
  `DELETE ${mine}/collections/${id}/get`,
  `PATCH ${mine}/collections/${id}`,
  `TRACE ${mine}/collections`,
  "OPTIONS *",
  "GET /openapi.json",
  "GET /docs",
  "POST /api/v2/heartbeat",
];

const asked = (line: string) => {
  const [, method = "", url = ""] = /^(\S+) (.*)$/s.exec(line) ?? [];
  return judge({ method, url }, own);
};

for (const line of passed) {
  test(`judge() passes ${line}`, () => assert.equal(asked(line), {}));
}
for (const line of passedById) {
  test(`judge() passes ${line} if the collection is in the database`, () => {
    assert.equal(asked(line), { collection: id });
  });
}
for (const line of refused) {
  test(`judge() refuses ${JSON.stringify(line)}`, () => {
    assert.match(
      asked(line).refused ?? "",
      /may use collections in claudy-app/,
    );
  });
}

test("judge() lets a worker without a project use the shared database only", () => {
  const method = "GET";
  assert.equal(judge({ method, url: `${shared}/collections` }, null), {});
  assert.ok(judge({ method, url: `${mine}/collections` }, null).refused);
  assert.ok(judge({ method, url: `${tenant}/databases//x` }, null).refused);
});

/** A ChromaDB with one collection, in `mine`. */
async function served(
  check: (chromadb: { socketPath: string }, asked: string[]) => Promise<void>,
) {
  const directory = mkdtempSync(join(tmpdir(), "chromadb-access-"));
  const path = join(directory, "chromadb.sock");
  const seen: string[] = [];
  const server = createServer(({ url = "" }, response) => {
    seen.push(url);
    response.statusCode = url === `${mine}/collections/by-id/${id}` ? 200 : 404;
    response.end();
  }).listen(path);
  await once(server, "listening");
  try {
    await check({ socketPath: path }, seen);
  } finally {
    server.close();
    rmSync(directory, { recursive: true });
  }
}

const request = (line: string) => {
  const [method, url] = line.split(" ");
  return { method, url, socket: {} as Socket } as Parameters<
    ReturnType<typeof admitToOwnDatabase>
  >[0];
};

test("admits a collection only in the database that has it, and asks once", async () => {
  await served(async (chromadb, seen) => {
    const admit = admitToOwnDatabase(chromadb, {
      originOf: () => "c",
      databaseOf: () => Promise.resolve(own),
    });
    const get = (database: string) =>
      admit(request(`POST ${database}/collections/${id}/get`));
    assert.is(await get(mine), undefined);
    assert.is(await get(mine), undefined);
    assert.is((await get(shared))?.status, 404);
    assert.is((await get(other))?.status, 403);
    assert.equal(seen, [
      `${mine}/collections/by-id/${id}`,
      `${shared}/collections/by-id/${id}`,
    ]);
  });
});

test("admits everything from the shared namespace, and nothing unknown from others", async () => {
  await served(async (chromadb, seen) => {
    const admit = (container: string | null) =>
      admitToOwnDatabase(chromadb, {
        originOf: () => container,
        databaseOf: () => Promise.reject(new Error("no answer")),
      });
    assert.is(
      await admit(null)(request("POST /api/v2/reset")),
      undefined,
    );
    const failure = await admit("c")(request("GET /api/v2/heartbeat"))
      .catch((error) => error.message);
    assert.is(failure, "no answer");
    assert.equal(seen, []);
  });
});

test("asks again for a worker that had no project", async () => {
  await served(async (chromadb) => {
    const answers = [null, own];
    const admit = admitToOwnDatabase(chromadb, {
      originOf: () => "c",
      databaseOf: () => Promise.resolve(answers.shift() ?? null),
    });
    assert.is((await admit(request(`GET ${mine}`)))?.status, 403);
    assert.is(await admit(request(`GET ${mine}`)), undefined);
    assert.is(await admit(request(`GET ${mine}`)), undefined);
    assert.equal(answers, []);
  });
});

test.run();
