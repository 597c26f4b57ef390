// Runs the egress proxy: gives it the policy, and keeps its log.

import { askProxy } from "../egress/ask.ts";
import { feedPolicy } from "../egress/feed.ts";
import { egressJournal } from "../egress/journal.ts";
import { Leaves } from "../egress/leaves.ts";
import type { Instance } from "../instance/instance.ts";
import { maxEntryBytes } from "../instance/journal.ts";
import { openSocket } from "../instance/parent-socket.ts";
import { messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { attempts, keepLines } from "./attempts.ts";
import type { ChildSpec } from "./supervisor.ts";

type Parent = Pick<Instance, "home" | "owner" | "docker" | "self">;

export function egressChild(instance: Parent, log: Log): ChildSpec {
  const journal = egressJournal(instance);
  const leaves = new Leaves();
  return {
    name: "egress",
    command: ["/scripts/egress-proxy"],
    logFile: instance.home.childLog("egress"),
    attend: (input, output) => {
      feedPolicy(instance, input, leaves).catch((error) =>
        log(`The egress proxy gets no policy: ${messageOf(error)}`)
      );
      const { egressLog } = instance.home;
      keepLines(
        output,
        maxEntryBytes,
        attempts(egressLog, log),
        (line) => journal.append(line),
      ).catch((error) => log(`warning: ${egressLog}: ${messageOf(error)}`));
    },
    watch: {
      answers: () => egressRefuses(instance),
      everyMs: 5000,
      silentMs: 15_000,
      startMs: 15_000,
    },
  };
}

/** No cloud's metadata is ever to be reached; the proxy only judges it. */
const forbidden = { host: "169.254.169.254", port: 80 };

/** Whether the proxy answers, and refuses what it must. */
export async function egressRefuses(instance: Parent): Promise<boolean> {
  const socket = openSocket(instance, instance.home.egressSocket);
  const asking = { session: null, project: null };
  return !(await askProxy(socket, forbidden, asking)).allowed;
}
