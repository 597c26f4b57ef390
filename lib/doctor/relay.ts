// Checks that sessions reach the relay.

import type { Instance } from "../instance/instance.ts";
import { readParentState } from "../instance/parent-state.ts";
import { relayAnswers } from "../relay/answers.ts";
import { relayPort } from "../relay/names.ts";
import { fail, type Finding, ok, warn } from "./findings.ts";

const restart = "claudy daemon restart";

export async function examineRelay(instance: Instance): Promise<Finding> {
  if (instance.settings.HAL9000_RELAY === "off") {
    return ok("off: workers have the credentials of their sessions");
  }
  const { open = [], taken = [] } = readParentState(instance)?.shared ?? {};
  if (!open.includes(relayPort)) {
    if (open.length + taken.length === 0) {
      return warn("no service is open to workers yet", "claudy doctor");
    }
    if (!taken.includes(relayPort)) {
      return fail("the parent was started without it", restart);
    }
    return warn(
      `port ${relayPort} of the shared network is occupied by a process in a worker`,
      "claudy ports",
    );
  }
  return await relayAnswers(instance)
    ? ok("answers; new workers get no credentials for the API")
    : fail("it does not answer", restart);
}
