// A database of ChromaDB for each project, with a fake ChromaDB.

import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { askDatabase } from "../../lib/gateway/worker-database.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { Databases } from "../../lib/parent/databases.ts";
import { projectDatabase } from "../../lib/project/project.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  made: string[];
  /** The answer of ChromaDB. */
  answer: { status: number };
  databases: Databases;
  stop: AbortController;
  close: () => void;
}

const test = suite<Context>("databases");

/** Only root can give the socket to the services' user. */
const rootTest = ((name, run) => {
  if (process.getuid?.() === 0) test(name, run);
  else console.log(`skipped, needs root: ${name}`);
}) as typeof test;

test.before.each(async (context) => {
  const fake = fakeInstance();
  const made: string[] = [];
  const answer = { status: 200 };
  const chromadb = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    made.push(`${request.method} ${request.url} ${text}`);
    response.statusCode = answer.status;
    response.end("{}");
  }).listen(0, "127.0.0.1");
  await once(chromadb, "listening");
  const { port } = chromadb.address() as AddressInfo;
  const owner = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  const instance = {
    ...fake.instance,
    owner,
    settings: { ...fake.instance.settings, CHROMADB_PORT: port },
  };
  mkdirSync(instance.home.ways, { recursive: true });
  Object.assign(context, fake, {
    instance,
    made,
    answer,
    databases: new Databases(instance, fake.log),
    stop: new AbortController(),
    close: () => chromadb.close(),
  });
});
test.after.each(({ stop, close, end }) => {
  stop.abort();
  close();
  end();
});

const id = "c".repeat(64);

function record({ instance }: Context, project: string, container = id): void {
  writeRecord(instance, {
    version: 1,
    worker: container.slice(0, 5),
    container,
    session: null,
    project: { path: project, uid: 0, gid: 0 },
    image: "i",
    born: "warm",
    home: "workers/w",
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: "2026-01-01T00:00:00.000Z",
  });
}

const creation = (project: string) =>
  "POST /api/v2/tenants/default_tenant/databases " +
  JSON.stringify({ name: projectDatabase(project) });

test("creates one database for each project that has a worker", async (context) => {
  const { databases, made } = context;
  record(context, "/srv/app");
  record(context, "/srv/app", "d".repeat(64));
  record(context, "/srv/web", "e".repeat(64));
  await databases.createAll();
  assert.equal(
    made.sort(),
    [creation("/srv/app"), creation("/srv/web")].sort(),
  );
});

rootTest(
  "tells the database of a worker, which exists then",
  async (context) => {
    const { databases, made, answer, instance, stop } = context;
    answer.status = 409; // it exists already
    const kept = databases.keep(stop.signal);
    const ask = (container: string) =>
      askDatabase(instance.home.databasesSocket, container);
    await waitFor(() => ask("x").then(() => true, () => false), {
      for: "the socket",
      timeoutMs: 5000,
    });
    assert.is(await ask(id), null);
    record(context, "/srv/app");
    made.length = 0;
    assert.is(await ask(id), projectDatabase("/srv/app"));
    assert.equal(made, [creation("/srv/app")]);
    stop.abort();
    await kept;
  },
);

rootTest(
  "creates the database of a worker that is claimed",
  async (context) => {
    const { databases, made, engine, stop, labels } = context;
    const kept = databases.keep(stop.signal);
    await waitFor(() => engine.followers === 1, {
      for: "the events",
      timeoutMs: 5000,
    });
    record(context, "/srv/app");
    const warm = engine.add("warm", { spec: { Labels: labels({}) } });
    engine.emit("rename", warm);
    await waitFor(() => made.includes(creation("/srv/app")), {
      for: "the database",
      timeoutMs: 5000,
    });
    stop.abort();
    await kept;
  },
);

rootTest(
  "a ChromaDB that does not answer is no error, unless a worker waits for it",
  async (context) => {
    const { databases, close, instance, stop } = context;
    record(context, "/srv/app");
    close();
    await databases.createAll();
    const kept = databases.keep(stop.signal);
    const failure = await waitFor(
      () =>
        askDatabase(instance.home.databasesSocket, id).catch((error) =>
          error.code === undefined || error.code === "failed"
            ? String(error.message)
            : undefined
        ),
      { for: "an answer", timeoutMs: 5000 },
    );
    assert.match(failure ?? "", /ChromaDB does not answer/);
    stop.abort();
    await kept;
  },
);

test.run();
