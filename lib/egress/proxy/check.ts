// Answers commands of the host that ask for a judgement. Connects to nothing.

import type { ServerResponse } from "node:http";
import { digestOf, type Policy } from "../policy.ts";
import { connectTarget } from "../target.ts";
import { judge } from "./judge.ts";
import type { World } from "./world.ts";

/** `url` is a path: /check?host=HOST&port=PORT, and session and project if any. */
export async function answerCheck(
  policy: () => Policy | undefined,
  url: string,
  response: ServerResponse,
  judging: { world: World; lookupMs: number },
): Promise<void> {
  const query = new URL(url, "http://egress/").searchParams;
  const host = query.get("host") ?? "";
  const place = host.includes(":") ? `[${host}]` : host;
  const target = connectTarget(`${place}:${query.get("port")}`);
  if (!target) {
    response.writeHead(400);
    return void response.end();
  }
  const asking = {
    session: query.get("session"),
    project: query.get("project"),
  };
  const found = await judge(policy, asking, target, judging);
  const now = policy();
  const digest = now ? digestOf(now, asking) : null;
  const body = JSON.stringify({ ...found, digest });
  response.writeHead(200, {
    "content-type": "application/json",
    // Otherwise it would be chunked.
    "content-length": new TextEncoder().encode(body).length,
  });
  response.end(body);
}
