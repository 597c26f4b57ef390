// The relay beside a direct connection: time to the first byte and to the end of a stream,
// with 1 and 20 clients at once, and the relay's memory while 200 MB pass.
//
// Runs the relay in a process of its own, with a stub for the API in another, and clients
// in this one. Prints milliseconds.

import { fork } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import {
  Agent,
  type AgentOptions,
  createServer as createTlsServer,
  request,
} from "node:https";
import { createConnection } from "node:net";
import { connect as connectTls } from "node:tls";
import type { AddressInfo } from "node:net";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { directNetwork } from "../../lib/egress/upstream.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";
import { readAuthorities } from "../../lib/relay/authority.ts";
import { ensureAuthority, newLeaf } from "../../lib/relay/certificates.ts";
import { defaultBounds } from "../../lib/relay/relay/bounds.ts";
import { Relay } from "../../lib/relay/relay/relay.ts";
import { originHeader } from "../../lib/std/origin.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { createMeter } from "../../lib/usage/meter.ts";

const placeholder = "sk-ant-hal9000-bench";
const events = 40;
const pauseMs = 10;

/** Begins each connection as nsenter does for the shared network. */
class RelayAgent extends Agent {
  override createConnection(
    { port, ca, servername }: AgentOptions & {
      port: number;
      servername: string;
    },
  ) {
    const socket = createConnection(port, "127.0.0.1");
    socket.setNoDelay(true); // as nsenter does
    socket.write(originHeader(null));
    return connectTls({ socket, ca, servername });
  }
}

const [role = "clients", root = ""] = process.argv.slice(2);
if (role === "clients") await clients();
else if (role === "api") await api();
else await relay();

async function clients() {
  const directory = mkdtempSync(join(tmpdir(), "relay-bench-"));
  const home = homePaths(directory);
  ensureHome({ home, owner: ownerOf(directory), prefix: "bench" });
  await ensureAuthority({ home, owner: ownerOf(directory) });
  const start = async (role: string) => {
    const child = fork(new URL(import.meta.url).pathname, [role, directory]);
    const [port] = await once(child, "message") as [number];
    return { child, port };
  };
  const stub = await start("api");
  process.env["BENCH_API"] = String(stub.port);
  const relaying = await start("relay");
  const ca = readAuthorities(home).map(({ cert }) => cert);
  const agents = {
    direct: new Agent({ keepAlive: true, ca }),
    relay: new RelayAgent({ keepAlive: true, ca }),
  };
  const ways = { direct: stub.port, relay: relaying.port };
  const ask = (way: keyof typeof ways, path: string) =>
    new Promise<{ first: number; whole: number }>((resolve, reject) => {
      const startedAt = performance.now();
      let first = 0;
      const asked = request({
        host: "127.0.0.1",
        port: ways[way],
        path,
        method: "POST",
        agent: agents[way],
        servername: "api.anthropic.com",
        headers: { "x-api-key": placeholder, "content-type": "text/plain" },
      }, (reply) => {
        if (reply.statusCode !== 200) {
          reply.on("data", (text) => reject(new Error(String(text))));
        }
        reply.on("data", () => first ||= performance.now() - startedAt);
        reply.on(
          "end",
          () => resolve({ first, whole: performance.now() - startedAt }),
        );
        reply.on("error", reject);
      });
      asked.on("error", reject);
      asked.end("x".repeat(50_000));
    });
  for (const at of [1, 20]) {
    const found: Record<string, { first: number; whole: number }[]> = {};
    // In turns, as other programs use the machine.
    for (let round = 0; round <= 10; round++) {
      for (const way of ["direct", "relay"] as const) {
        const all = await Promise.all(
          Array.from({ length: at }, () => ask(way, "/v1/messages?stream")),
        );
        if (round > 0) (found[way] ??= []).push(...all);
      }
    }
    for (const [way, all] of Object.entries(found)) {
      const p50 = (of: (one: typeof all[0]) => number) =>
        all.map(of).sort((a, b) => a - b)[Math.floor(all.length / 2)];
      console.log(
        `${at} at once, ${way}: first byte ${
          p50(({ first }) => first)?.toFixed(1)
        }, whole ${p50(({ whole }) => whole)?.toFixed(1)}`,
      );
    }
  }
  const memory = () =>
    Number(
      /VmRSS:\s+(\d+)/.exec(
        readFileSync(`/proc/${relaying.child.pid}/status`, "utf8"),
      )?.[1],
    ) / 1024;
  const before = memory();
  let peak = before;
  const watching = setInterval(() => peak = Math.max(peak, memory()), 20);
  for (const way of ["direct", "relay", "relay"] as const) {
    const { whole } = await ask(way, "/v1/messages?bytes=200000000");
    console.log(
      `200 MB, ${way}: ${whole.toFixed(0)}, the relay has ${
        memory().toFixed(0)
      } MiB`,
    );
  }
  clearInterval(watching);
  console.log(
    `memory of the relay: ${before.toFixed(0)} MiB, at most ${
      peak.toFixed(0)
    }, after ${memory().toFixed(0)}`,
  );
  stub.child.kill();
  relaying.child.kill();
  rmSync(directory, { recursive: true });
  process.exit();
}

async function api() {
  const home = homePaths(root);
  const leaf = await newLeaf(readAuthorities(home));
  const server = createTlsServer(leaf, async (asked, reply) => {
    for await (const _ of asked);
    const bytes = Number(/bytes=(\d+)/.exec(asked.url ?? "")?.[1] ?? 0);
    reply.writeHead(200, { "content-type": "text/event-stream" });
    const chunk = new Uint8Array(64 * 1024);
    for (let sent = 0; sent < bytes; sent += chunk.length) {
      if (!reply.write(chunk)) await once(reply, "drain");
    }
    for (let n = 0; bytes === 0 && n < events; n++) {
      reply.write(`event: ping\ndata: {"type":"ping","n":${n}}\n\n`);
      await sleep(pauseMs);
    }
    reply.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  process.send?.((server.address() as AddressInfo).port);
}

async function relay() {
  const home = homePaths(root);
  const authorities = readAuthorities(home);
  const relay = new Relay({
    bounds: defaultBounds,
    report: () => {},
    meter: createMeter(() => {}),
  });
  const ca = authorities.map(({ cert }) => cert).join("\n");
  relay.setState({
    leaf: await newLeaf(authorities),
    credentials: { key: "real", token: null, login: null },
    workers: {
      worker: { worker: "w", session: "w", project: "/p", home: "claude/w" },
    },
    grants: {
      "claude/w": {
        version: 1,
        home: "claude/w",
        placeholder,
        kind: "key",
        credential: null,
        baseUrl: `https://127.0.0.1:${process.env["BENCH_API"]}`,
        headers: [],
        upstream: { ...directNetwork.upstream, ca },
        isolated: false,
      },
    },
    usage: {
      version: 1,
      paused: {},
      sessions: {},
      projects: {},
      maxPerMinute: 0,
    },
  });
  const server = relay.server().listen(0, "127.0.0.1");
  await once(server, "listening");
  process.send?.((server.address() as AddressInfo).port);
}
