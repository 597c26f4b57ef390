// Asks the running proxy about a host by the rules that the files have now.

import { setTimeout as sleep } from "node:timers/promises";
import type { Instance } from "../instance/instance.ts";
import { openSocket } from "../instance/parent-socket.ts";
import { readRecords } from "../instance/record.ts";
import { Failure, messageOf } from "../std/errors.ts";
import type { Log } from "../std/log.ts";
import { type Answer, askProxy } from "./ask.ts";
import {
  grantedSecrets,
  type HostSecret,
  readHostSecrets,
} from "./host-secrets.ts";
import { type Asking, digestOf, type Policy, secretsFor } from "./policy.ts";
import { readScope, type Whose } from "./store.ts";
import { connectTarget, type Target } from "./target.ts";
import { directNetwork } from "./upstream.ts";

/** Whose rules an action is about, and those of which project apply to it. */
export interface Scoped extends Whose {
  /** The project of a session. */
  of?: string;
}

/** The levels that apply, as the proxy knows them. */
export function policyOf(instance: Instance, whose: Scoped): Policy {
  const { session, of } = whose;
  const project = whose.project ?? of;
  return {
    setting: instance.settings.EGRESS_PRESET,
    instance: readScope(instance, {}),
    projects: project === undefined
      ? {}
      : { [project]: readScope(instance, { project }) },
    sessions: session === undefined
      ? {}
      : { [session]: readScope(instance, { session }) },
    workers: {},
    own: { host: [], parent: [] },
    upstream: directNetwork.upstream,
    secrets: {},
  };
}

/** Who asks. */
export const askingOf = ({ session, project, of }: Scoped) => ({
  session: session ?? null,
  project: project ?? of ?? null,
});

/** The target of a URL of any scheme, or of HOST[:PORT]. Throws a `usage` Failure. */
export function targetOf(text: string): Target {
  const ports: Record<string, number> = {
    http: 80,
    https: 443,
    ssh: 22,
    git: 9418,
  };
  const [, scheme = "https", place = ""] =
    /^(?:([a-z][a-z0-9+.-]*):\/\/)?(?:[^/?#@]*@)?([^/?#@]*)/i.exec(text) ?? [];
  const port = ports[scheme.toLowerCase()] ?? 443;
  const target = connectTarget(
    /^(\[[^\]]*\]|[^:]*):[^:]*$/.test(place) ? place : `${place}:${port}`,
  );
  if (target) return target;
  throw new Failure("usage", `Not a URL or HOST[:PORT]: "${text}"`, {
    hint: "For instance: claudy egress check https://example.com/",
  });
}

/** Those that a session was given; without one, those that sessions get from their next start. */
export function secretsThere(
  instance: Instance,
  target: Target,
  { session }: Scoped,
): HostSecret[] {
  const record = session === undefined
    ? undefined
    : readRecords(instance).find((one) => one.session === session);
  const secrets = record
    ? grantedSecrets(instance, record.home)
    : readHostSecrets(instance);
  return secretsFor(secrets, target);
}

/** Longer than the proxy takes to get changed rules. */
const staleMs = 3000;

/** The proxy's answer by the rules that the files have now. */
export async function presentAnswer(
  instance: Instance,
  target: Target,
  whose: Scoped,
  log: Log,
): Promise<Omit<Answer, "digest">> {
  const asking = askingOf(whose);
  const deadline = Date.now() + staleMs;
  while (true) {
    const { digest, ...answer } = await answerOf(instance, target, asking);
    const present = presentDigest(instance, whose);
    // A proxy of an earlier version sends none.
    if (digest === undefined || present === undefined) return answer;
    if (digest === present) return answer;
    if (Date.now() > deadline) {
      log("warning: The proxy does not have the present rules");
      return answer;
    }
    await sleep(50);
  }
}

/** Undefined if they cannot be read, which the proxy's answer tells. */
function presentDigest(instance: Instance, whose: Scoped): string | undefined {
  try {
    return digestOf(policyOf(instance, whose), askingOf(whose));
  } catch {
    return undefined;
  }
}

async function answerOf(
  instance: Instance,
  target: Target,
  asking: Asking,
): Promise<Answer> {
  try {
    const socket = openSocket(instance, instance.home.egressSocket);
    return await askProxy(socket, target, asking);
  } catch (error) {
    throw new Failure(
      "notFound",
      `The egress proxy does not answer: ${messageOf(error)}`,
      { hint: "Start the parent: claudy daemon start" },
    );
  }
}
