// The relay's own process, with the parent's part for it and an API of the test.

import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  request as requestHttp,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { rmSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { LoginRefresh } from "../../lib/home/login.ts";
import { relayChild } from "../../lib/parent/relay.ts";
import { relayAnswers } from "../../lib/relay/answers.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { fakeInstance } from "../helper/fake-engine.ts";
import { addSession } from "../helper/relay.ts";

const test = suite("relay-process");

const program = new URL(
  "../../lib/relay/relay/anthropic-relay.ts",
  import.meta.url,
).pathname;

type Answer = (response: ServerResponse, path: string) => unknown;

async function start(answer: Answer) {
  const { instance, log, end } = fakeInstance();
  rmSync(instance.home.relayAuthorities);
  const { home } = instance;
  const api = createHttpServer(async (request, response) => {
    for await (const _ of request);
    answer(response, request.url ?? "");
  }).listen(0, "127.0.0.1");
  await once(api, "listening");
  const { port } = api.address() as AddressInfo;
  const spec = relayChild(instance, new LoginRefresh(), log);
  let child: ChildProcess | undefined;
  const run = async () => {
    child = spawn(process.execPath, [
      "run",
      "--allow-all",
      "--no-lock",
      "--quiet",
      program,
    ], {
      env: { ...process.env, HAL9000_HOME: home.home },
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (!child.stdin || !child.stdout) throw new Error("it has no streams");
    spec.attend?.(child.stdin, child.stdout);
    await waitFor(() => relayAnswers(instance), {
      for: "the relay",
      timeoutMs: 30_000,
    });
  };
  await run();
  const clientOf = (name: string) => {
    const grant = {
      kind: "caller",
      credential: "key",
      baseUrl: `http://127.0.0.1:${port}`,
    } as const;
    const { connect, placeholder } = addSession(instance, name, grant);
    /** The reply's status and bytes, and whether it is whole. */
    return async (path: string, body = "") => {
      const request = requestHttp({
        method: "POST",
        path: `/v1/messages?${path}`,
        createConnection: connect,
        headers: { "x-api-key": placeholder },
      });
      request.end(body);
      const [response] = await once(request, "response") as [IncomingMessage];
      let [bytes, text, isWhole] = [0, "", true];
      try {
        for await (const chunk of response) {
          bytes += chunk.length;
          if (text.length < 10_000) text += chunk;
        }
      } catch {
        isWhole = false;
      }
      return { status: response.statusCode, bytes, text, isWhole };
    };
  };
  return {
    home,
    clientOf,
    run,
    kill: async () => {
      child?.kill("SIGKILL");
      if (child?.exitCode === null && child.signalCode === null) {
        await once(child, "exit");
      }
    },
    memory: () => {
      const status = readFileSync(`/proc/${child?.pid}/status`, "utf8");
      return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) * 1024;
    },
    stop: async () => {
      child?.kill("SIGKILL");
      if (child?.exitCode === null && child.signalCode === null) {
        await once(child, "exit");
      }
      api.closeAllConnections();
      api.close();
      await sleep(300);
      end();
    },
  };
}

const event = (type: string, data: object) =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
const begun = event("message_start", {
  message: { model: "claude-test", usage: { input_tokens: 7 } },
});
const ended = event("message_delta", { usage: { output_tokens: 5 } });
const stream = { "content-type": "text/event-stream" };

const size = 100_000_000;

test("100 MB, garbage, a slow and a cut reply leave memory flat and others unharmed", async () => {
  const served = await start(async (response, path) => {
    const sort = path.split("?")[1];
    if (sort === "none") return void response.socket?.destroy();
    response.writeHead(200, stream);
    if (sort === "short") return void response.end(begun + ended);
    if (sort === "cut") {
      response.write(begun);
      return void setTimeout(() => response.socket?.destroy(), 50);
    }
    if (sort === "slow") {
      for (const byte of begun + ended) {
        response.write(byte);
        await sleep(10);
      }
      return void response.end();
    }
    const chunk = sort === "garbage"
      ? randomBytes(1_000_000)
      : Buffer.alloc(1_000_000, "x");
    const count = sort === "large" ? size / chunk.length : 5;
    for (let sent = 0; sent < count; sent++) {
      if (!response.write(chunk)) await once(response, "drain");
    }
    response.end();
  });
  const [large, others, calm] = ["large", "others", "calm"].map(
    served.clientOf,
  );
  if (!large || !others || !calm) throw new Error("no clients");
  await calm("short");
  await large("warm"); // memory for what comes after
  const before = served.memory();
  let peak = before;
  const watching = setInterval(() => {
    peak = Math.max(peak, served.memory());
  }, 20);
  let isOver = false;
  const all = Promise.all([
    large("large", "x".repeat(10_000_000)),
    others("slow"),
    others("garbage"),
    others("cut"),
    others("none"),
  ]).finally(() => isOver = true);
  const times: number[] = [];
  while (!isOver) {
    const startedAt = performance.now();
    const { status, text } = await calm("short");
    times.push(performance.now() - startedAt);
    assert.is(status, 200);
    assert.is(text, begun + ended);
    await sleep(20);
  }
  clearInterval(watching);
  const [whole, slow, garbage, cut, none] = await all;
  assert.equal([whole.bytes, whole.isWhole], [size, true]);
  assert.equal([slow.text, slow.isWhole], [begun + ended, true]);
  assert.equal([garbage.bytes, garbage.isWhole], [5_000_000, true]);
  assert.ok(begun.startsWith(cut.text) && !cut.isWhole, cut.text);
  assert.is(none.status, 502);
  assert.is(JSON.parse(none.text).type, "error");
  const gained = Math.round((peak - before) / 1024 ** 2);
  assert.ok(gained < 150, `${gained} MiB more`);
  assert.ok(times.length > 3, String(times.length));
  await served.stop();
});

test("a request that is repeated after the relay was killed is counted once more, and nothing lost", async () => {
  let go: (() => void) | undefined;
  const served = await start((response, path) => {
    response.writeHead(200, stream);
    if (path.endsWith("short")) return void response.end(begun + ended);
    // In the middle of an event.
    response.write(begun + ended.slice(0, 20));
    go = () => response.end(ended.slice(20));
  });
  const ask = served.clientOf("killed");
  const asking = ask("stream");
  const today = () => {
    const { today } = JSON.parse(readFileSync(served.home.usageStatus, "utf8"));
    return today["killed"] ?? {};
  };
  const counts = (requests: number, tokens: number) =>
    waitFor(() => today().requests === requests && today().tokens === tokens, {
      for: `${requests} requests with ${tokens} tokens`,
      timeoutMs: 10_000,
    });
  await waitFor(() => go, { for: "the stream", timeoutMs: 10_000 });
  await counts(1, 7);
  await served.kill();
  assert.is((await asking).isWhole, false);
  go?.();
  await served.run();
  assert.equal((await ask("short")).text, begun + ended);
  await counts(2, 7 + 12);
  await sleep(300);
  assert.is(today().requests, 2);
  await served.stop();
});

test.run();
