// Checks that the egress proxy runs, and that its policy holds.

import { type Answer, askProxy } from "../egress/ask.ts";
import { readScope } from "../egress/store.ts";
import type { Target } from "../egress/target.ts";
import type { Instance } from "../instance/instance.ts";
import { openSocket } from "../instance/parent-socket.ts";
import { messageOf } from "../std/errors.ts";
import { fail, type Finding, ok } from "./findings.ts";

/** No policy allows these: the metadata of clouds, and the parent's own services. */
const forbidden: Target[] = [
  { host: "169.254.169.254", port: 80 },
  { host: "127.0.0.1", port: 8000 },
  { host: "::ffff:a9fe:a9fe", port: 80 },
];

/** Asks the running proxy, which judges them without connecting. */
export async function examineEgress(instance: Instance): Promise<Finding> {
  const { rules, preset } = readScope(instance, {});
  for (const target of forbidden) {
    let answer: Answer;
    try {
      const socket = openSocket(instance, instance.home.egressSocket);
      answer = await askProxy(socket, target, { session: null, project: null });
    } catch (error) {
      return fail(
        `the proxy does not answer: ${messageOf(error)}`,
        "claudy daemon restart",
      );
    }
    if (answer.allowed) {
      return fail(`it allows ${target.host}`, "claudy daemon restart");
    }
    if (answer.rule !== "address") {
      return fail(answer.sentence, "claudy egress show");
    }
  }
  const name = preset ?? instance.settings.EGRESS_PRESET;
  const count = rules.length === 0 ? "" : `, rules: ${rules.length}`;
  return ok(`preset ${name}${count}; the proxy refuses what it must`);
}
