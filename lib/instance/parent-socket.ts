// The socket on which the parent answers liveness checks.

import { once } from "node:events";
import type { Instance } from "./instance.ts";
import { Client, listen } from "../std/socket-lines.ts";

type Home = Pick<Instance, "home" | "owner">;

/** How long a live parent may take to answer on a busy machine. */
const answerMs = 10_000;

/** In the parent: answers at run/parent.sock until `stop` is aborted. */
export async function serveParent(
  { home, owner }: Home,
  stop: AbortSignal,
): Promise<void> {
  const answer = () => Promise.resolve({});
  const listener = await listen(home.parentSocket, answer, { owner });
  if (!stop.aborted) await once(stop, "abort");
  await listener.close();
}

/** Whether the parent answers on its socket. */
export async function parentAnswers(
  { home }: Pick<Instance, "home">,
): Promise<boolean> {
  const client = new Client(home.parentSocket);
  try {
    await client.ask({}, answerMs);
    return true;
  } catch {
    return false;
  } finally {
    client.close();
  }
}
