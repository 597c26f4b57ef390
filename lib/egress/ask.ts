// Asks the running proxy to judge a target, without connecting to it.

import type { Duplex } from "node:stream";
import * as v from "valibot";
import { originHeader } from "../std/origin.ts";
import type { Asking } from "./policy.ts";
import type { Target } from "./target.ts";

/** The origin of a command on the host: no container has this id. */
export const hostOrigin = "0".repeat(64);

const answerSchema = v.object({
  allowed: v.boolean(),
  failed: v.optional(v.boolean()),
  rule: v.string(),
  from: v.string(),
  sentence: v.string(),
  addresses: v.array(v.string()),
  /** Of the rules that it judged by, see digestOf(); null for none. */
  digest: v.optional(v.nullable(v.string())),
});

export type Answer = v.InferOutput<typeof answerSchema>;

const answerMs = 15_000;
const maxAnswerBytes = 64 * 1024;

/** `socket` is a new connection to run/ways/services/3128.sock. */
export function askProxy(
  socket: Duplex,
  { host, port }: Target,
  { session, project }: Asking,
): Promise<Answer> {
  const query = new URLSearchParams({ host, port: String(port) });
  if (session !== null) query.set("session", session);
  if (project !== null) query.set("project", project);
  return new Promise((resolve, reject) => {
    const late = setTimeout(
      () => socket.destroy(new Error("no answer in time")),
      answerMs,
    );
    socket.on("error", reject);
    socket.on("close", () => {
      clearTimeout(late);
      reject(new Error("the connection was closed"));
    });
    let text = "";
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > maxAnswerBytes) socket.destroy();
    });
    socket.on("end", () => {
      socket.destroy();
      try {
        const body = text.slice(text.indexOf("\r\n\r\n") + 4);
        resolve(v.parse(answerSchema, JSON.parse(body)));
      } catch (error) {
        reject(error);
      }
    });
    socket.write(originHeader(hostOrigin));
    socket.write(
      `GET /check?${query} HTTP/1.1\r\nHost: egress\r\nConnection: close\r\n\r\n`,
    );
  });
}
