// The egress policy: who asks, for which host, and which rule decides. Nothing here
// resolves names or connects.

import { createHash } from "node:crypto";
import * as v from "valibot";
import { notPublic } from "./address.ts";
import { type Preset, presetAllows, presets } from "./presets.ts";
import { matches, parseRule, type Rule, ruleText } from "./rules.ts";
import { upstreamSchema } from "./upstream.ts";
import { normalHost, type Target, targetText } from "./target.ts";

const ruleSchema = v.pipe(
  v.string(),
  v.maxLength(300),
  v.rawTransform(({ dataset, addIssue, NEVER }): Rule => {
    try {
      return parseRule(dataset.value);
    } catch {
      addIssue({ message: `not a rule: "${dataset.value}"` });
      return NEVER;
    }
  }),
);

/** More than anyone writes, and few enough to compare with each request. */
export const maxRules = 1000;

/** The rules of one level: a session, a project, or the instance. */
export const scopeSchema = v.object({
  preset: v.optional(v.picklist(presets)),
  rules: v.pipe(v.array(ruleSchema), v.maxLength(maxRules)),
});

export type Scope = v.InferOutput<typeof scopeSchema>;

/** A scope as it is stored and sent. */
export type ScopeText = v.InferInput<typeof scopeSchema>;

/** Null for a scope whose file cannot be read: nothing is allowed. */
const optionalScope = v.nullable(scopeSchema);

const clientSchema = v.object({
  /** The container's name. */
  worker: v.string(),
  session: v.nullable(v.string()),
  /** The project's path on the host. */
  project: v.string(),
  /** Names of the secrets that are set in its requests. */
  secrets: v.optional(v.array(v.string()), []),
});

export type Client = v.InferOutput<typeof clientSchema>;

/** A named secret, and the certificate for its host that workers trust, as PEM. */
const secretSchema = v.object({
  host: v.string(),
  header: v.string(),
  value: v.string(),
  leaf: v.object({ cert: v.string(), key: v.string() }),
});

/** What the proxy gets to know, as a line of JSON. */
export const policySchema = v.object({
  /** EGRESS_PRESET; null if the settings cannot be read. */
  setting: v.nullable(v.picklist(presets)),
  instance: optionalScope,
  projects: v.record(v.string(), optionalScope),
  sessions: v.record(v.string(), optionalScope),
  /** By the container's id. */
  workers: v.record(v.string(), clientSchema),
  /** Addresses of the machines that the proxy runs on. */
  own: v.object({ host: v.array(v.string()), parent: v.array(v.string()) }),
  upstream: upstreamSchema,
  /** By name; those that a worker uses. */
  secrets: v.optional(v.record(v.string(), secretSchema), {}),
});

export type Policy = v.InferOutput<typeof policySchema>;
export type PolicyText = v.InferInput<typeof policySchema>;

export interface NamedSecret extends v.InferOutput<typeof secretSchema> {
  name: string;
}

/** Requests to other ports are not changed. */
const secretPort = 443;

/** Those of the secrets that are for requests to a target. */
export function secretsFor<T extends { host: string }>(
  secrets: readonly T[],
  { host, port }: Target,
): T[] {
  return port === secretPort ? secrets.filter((one) => one.host === host) : [];
}

/** The secrets that are set in a worker's requests to a target. */
export function secretsOf(
  policy: Policy | undefined,
  client: Client | undefined,
  target: Target,
): NamedSecret[] {
  const given = (client?.secrets ?? []).flatMap((name) => {
    const found = policy && Object.hasOwn(policy.secrets, name)
      ? policy.secrets[name]
      : undefined;
    return found ? [{ ...found, name }] : [];
  });
  return secretsFor(given, target);
}

/** Who asks: a worker, or a command that asks for one. */
export interface Asking {
  session: string | null;
  project: string | null;
}

export interface Verdict {
  allowed: boolean;
  /** What decided, such as "deny *.example.com", "preset balanced" or "address". */
  rule: string;
  /** Where the rule is from, such as `session "x"`; empty for an address. */
  from: string;
  /** One sentence for the worker and the user. */
  sentence: string;
}

interface Level {
  /** For people: `session "x"`. */
  name: string;
  /** Options of `claudy egress` for this level. */
  option: string;
  scope: Scope | null;
}

/** The levels that apply, the strongest first. */
function levelsOf(policy: Policy, { session, project }: Asking): Level[] {
  const none: Scope = { rules: [] };
  const of = (scopes: Record<string, Scope | null>, name: string) =>
    Object.hasOwn(scopes, name) ? scopes[name] ?? null : none;
  return [
    ...(session === null ? [] : [{
      name: `session "${session}"`,
      option: ` --session ${session}`,
      scope: of(policy.sessions, session),
    }]),
    ...(project === null ? [] : [{
      name: `project ${project}`,
      option: ` --project ${project}`,
      scope: of(policy.projects, project),
    }]),
    { name: "the instance", option: "", scope: policy.instance },
  ];
}

/** Equal in all processes that have read the same rules and presets. */
export function digestOf(policy: Policy, asking: Asking): string {
  const scopes = levelsOf(policy, asking).map(({ scope }) =>
    scope && [scope.preset ?? null, scope.rules.map(ruleText)]
  );
  return createHash("sha256").update(JSON.stringify(scopes)).digest("hex");
}

/** The preset that applies, and where it is set. */
export function presetOf(
  policy: Policy,
  asking: Asking,
): { preset: Preset; from: string } {
  for (const { name, scope } of levelsOf(policy, asking)) {
    if (scope?.preset) return { preset: scope.preset, from: name };
  }
  return { preset: policy.setting ?? "closed", from: "EGRESS_PRESET" };
}

/** The first rule that is about the target: by level, and "deny" first. */
function ruleFor(levels: Level[], target: Target) {
  for (const level of levels) {
    const about = (level.scope?.rules ?? [])
      .filter((rule) => matches(rule, target));
    const rule = about.find(({ action }) => action === "deny") ?? about[0];
    if (rule) return { rule, level };
  }
  return undefined;
}

/** Judges a host by its name, before it is resolved. */
export function judgeHost(
  policy: Policy,
  asking: Asking,
  target: Target,
): Verdict {
  const place = targetText(target);
  const levels = levelsOf(policy, asking);
  const unread = levels.find(({ scope }) => scope === null);
  if (unread || policy.setting === null) {
    const what = unread ? `the rules of ${unread.name}` : "the settings";
    return {
      allowed: false,
      rule: "unreadable",
      from: unread?.name ?? "EGRESS_PRESET",
      sentence:
        `Egress to ${place} is refused, because ${what} cannot be read; see why on the host: claudy egress show`,
    };
  }
  const found = ruleFor(levels, target);
  if (found) {
    const { rule, level } = found;
    const text = ruleText(rule);
    return {
      allowed: rule.action === "allow",
      rule: text,
      from: level.name,
      sentence: rule.action === "allow"
        ? `Egress to ${place} is allowed by the rule "${text}" of ${level.name}.`
        : `Egress to ${place} is refused by the rule "${text}" of ${level.name}; to remove it, run on the host: claudy egress deny --remove ${
          text.slice("deny ".length)
        }${level.option}`,
    };
  }
  const { preset, from } = presetOf(policy, asking);
  const allowed = presetAllows(preset, target);
  return {
    allowed,
    rule: `preset ${preset}`,
    from,
    sentence: allowed
      ? `Egress to ${place} is allowed by the preset ${preset}.`
      : `Egress to ${place} is refused: no rule allows it, and the preset is ${preset}; to allow it, run on the host: claudy egress allow ${
        hostArgument(target)
      }`,
  };
}

/**
 * Judges an address that an allowed host resolves to. Addresses that are not public need
 * a rule of their own, however the host is allowed: the owner of a name can
 * point it anywhere.
 */
export function judgeAddress(
  policy: Policy,
  asking: Asking,
  target: Target,
  address: string,
): Verdict | undefined {
  const host = normalHost(address.includes(":") ? `[${address}]` : address) ??
    address;
  const there = { host, port: target.port };
  const isNamed = host === target.host;
  const place = `Egress to ${targetText(target)} is refused`;
  const found = ruleFor(
    levelsOf(policy, asking).map((level) => ({
      ...level,
      // "*" is about names.
      scope: level.scope &&
        { rules: level.scope.rules.filter((rule) => rule.host === host) },
    })),
    there,
  );
  if (found?.rule.action === "deny" && !isNamed) {
    const text = ruleText(found.rule);
    return {
      allowed: false,
      rule: text,
      from: found.level.name,
      sentence:
        `${place}: it resolves to ${host}, which the rule "${text}" of ${found.level.name} denies.`,
    };
  }
  const fault = notPublic(address, policy.own);
  const isAllowed = found?.rule.action === "allow";
  if (!fault || (fault.allowable && isAllowed)) return undefined;
  const what = isNamed
    ? `it is ${fault.what}`
    : `it resolves to ${host}, ${fault.what}`;
  return {
    allowed: false,
    rule: "address",
    from: "",
    sentence: fault.allowable
      ? `${place}: ${what}; to allow it, run on the host: claudy egress allow ${
        targetText(there)
      }`
      : `${place}: ${what}, which no rule can allow.`,
  };
}

/** The argument of `claudy egress allow` for a target. */
function hostArgument(target: Target): string {
  const isWeb = target.port === 80 || target.port === 443;
  return isWeb ? targetText(target).replace(/:\d+$/, "") : targetText(target);
}
