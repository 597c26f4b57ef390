// Judges a request completely: the host, then each address that it resolves to.

import { isIP } from "node:net";
import { isLocalhost } from "../address.ts";
import {
  type Asking,
  judgeAddress,
  judgeHost,
  type Policy,
  type Verdict,
} from "../policy.ts";
import { type Target, targetText } from "../target.ts";
import { within, type World } from "./world.ts";

export interface Judgement extends Verdict {
  /** Allowed, but its addresses are not known. */
  failed?: boolean;
  /** Addresses that may be connected to; empty unless it is allowed. */
  addresses: string[];
}

/** `policy` is called again after the name is resolved, as it may have changed. */
export async function judge(
  policy: () => Policy | undefined,
  asking: Asking,
  target: Target,
  { world, lookupMs, mustResolve = true }: {
    world: World;
    lookupMs: number;
    /** Whether the address is needed; the user's own proxy resolves names itself. */
    mustResolve?: boolean;
  },
): Promise<Judgement> {
  const first = judgeTarget(policy(), asking, target);
  if (!first.allowed) return { ...first, addresses: [] };
  let addresses: string[];
  try {
    addresses = isIP(target.host) ? [target.host] : await within(
      world.lookup(target.host),
      lookupMs,
      "no answer in time",
    );
    if (addresses.length === 0) throw new Error("it has no address");
  } catch (error) {
    if (!mustResolve) return { ...first, addresses: [] };
    const { code, message } = error as NodeJS.ErrnoException;
    return {
      ...first,
      failed: true,
      addresses: [],
      sentence: `Egress to ${
        targetText(target)
      } is allowed, but the name cannot be resolved: ${code ?? message}`,
    };
  }
  const last = judgeTarget(policy(), asking, target, addresses);
  return { ...last, addresses: last.allowed ? addresses : [] };
}

/** Judges a host, and addresses that it is known to have. */
export function judgeTarget(
  policy: Policy | undefined,
  asking: Asking,
  target: Target,
  addresses: string[] = [],
): Verdict {
  const place = targetText(target);
  if (!policy) {
    return {
      allowed: false,
      rule: "no policy",
      from: "",
      sentence:
        `Egress to ${place} is refused, because the proxy has no policy yet; try again.`,
    };
  }
  const refusalOf = (all: string[]) =>
    all.map((address) => judgeAddress(policy, asking, target, address))
      .find((refusal) => refusal !== undefined);
  // Before the rules of hosts, whose hints would not help.
  const { host } = target;
  const given = isIP(host)
    ? refusalOf([host])
    : isLocalhost(host)
    ? refusalOf(["127.0.0.1"])
    : undefined;
  if (given) return given;
  const verdict = judgeHost(policy, asking, target);
  return verdict.allowed ? refusalOf(addresses) ?? verdict : verdict;
}
