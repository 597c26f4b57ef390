// claudy egress: shows and changes which hosts isolated workers can reach.

import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import type { CAC, Command } from "cac";
import { command } from "../cli/cli.ts";
import type { Io } from "../cli/io.ts";
import { wholeNumber } from "../cli/options.ts";
import { unallowable } from "../egress/address.ts";
import {
  askingOf,
  policyOf,
  presentAnswer,
  type Scoped,
  secretsThere,
  targetOf,
} from "../egress/check.ts";
import { type Entry, lastEntries } from "../egress/journal.ts";
import { judgeHost, maxRules, presetOf } from "../egress/policy.ts";
import { presetMeanings, presets } from "../egress/presets.ts";
import { parseHost, type Rule, ruleText } from "../egress/rules.ts";
import { readScope, type Whose, writeScope } from "../egress/store.ts";
import { type Target, targetText } from "../egress/target.ts";
import type { Instance } from "../instance/instance.ts";
import { openHome, viewInstance } from "../instance/open.ts";
import { readRecords } from "../instance/record.ts";
import type { SessionRecord } from "../instance/session-record.ts";
import { exitCode, Failure } from "../std/errors.ts";
import { didYouMean } from "../std/nearest.ts";
import { columns } from "../std/text.ts";
import { binarySize } from "../std/units.ts";
import { namedSession } from "./workers.ts";

interface Options {
  project?: unknown;
  session?: unknown;
  json?: boolean;
  remove?: boolean;
  tail?: unknown;
}

export function egressCommand(io: Io): CAC {
  const cli = command("claudy egress");

  scoped(cli.command("show", "Show the preset and the rules (default)"))
    .alias("!")
    .action(async (options: Options) => {
      const instance = await openHome(io.env, io.log);
      showPolicy(io, instance, whoseOf(io, instance, options), options.json);
    });

  for (const action of ["allow", "deny"] as const) {
    const meaning = action === "allow"
      ? "Allow hosts: HOST[:PORT] or *.DOMAIN[:PORT]; without a port, 80 and 443"
      : "Deny hosts: HOST[:PORT] or *.DOMAIN[:PORT]; without a port, every port";
    scoped(cli.command(`${action} <...hosts>`, meaning))
      .option("--remove", "Remove the rules instead of adding them")
      .example(
        action === "allow"
          ? "claudy egress allow example.com '*.example.org' github.com:22"
          : "claudy egress deny example.com '*.example.org'",
      )
      .action(async (hosts: unknown[], options: Options) => {
        const instance = await openHome(io.env, io.log);
        const rules = hosts.map((host) => ({
          action,
          ...parseHost(String(host)),
        }));
        const whose = whoseOf(io, instance, options);
        if (action === "allow" && !options.remove) refuseUseless(rules);
        changeRules(instance, whose, rules, options.remove ?? false);
        if (!options.remove) warnOfStronger(io, instance, whose, rules);
        showPolicy(io, instance, whose, options.json);
      });
  }

  scoped(
    cli.command(
      "preset <name>",
      "Choose open, balanced or closed for hosts without a rule; default undoes it",
    ),
  )
    .action(async (name: unknown, options: Options) => {
      const preset = presets.find((one) => one === name);
      if (!preset && name !== "default") {
        throw new Failure("usage", `Unknown preset "${name}"`, {
          hint: `${didYouMean(String(name), presets)}Presets: ${
            presets.join(", ")
          }, default.`,
        });
      }
      const instance = await openHome(io.env, io.log);
      const whose = whoseOf(io, instance, options);
      const { rules } = readScope(instance, whose);
      writeScope(instance, whose, { ...(preset ? { preset } : {}), rules });
      showPolicy(io, instance, whose, options.json);
    });

  cli.command("log", "Print the last decisions of the proxy")
    .option("--tail <n>", "Number of entries to show (default: 50)")
    .option("--session <name>", "Only those of a session")
    .option("--json", "Print them as lines of JSON")
    .action(async ({ tail, session, json }: Options) => {
      const instance = await openHome(io.env, io.log);
      const name = session === undefined
        ? undefined
        : sessionOf(io, instance, session).name;
      const entries = lastEntries(
        instance,
        wholeNumber("--tail", tail) ?? 50,
        name,
      );
      if (json) { for (const entry of entries) io.answerLine(entry, "", true); }
      else io.answer(null, entriesText(entries));
    });

  scoped(
    cli.command(
      "check <url>",
      "Ask the running proxy about a URL or HOST[:PORT], without connecting to it",
    ),
  )
    .example("claudy egress check https://example.com/")
    .action(async (url: unknown, options: Options) => {
      const instance = await viewInstance(io.env, io.log);
      const target = targetOf(String(url));
      const whose = whoseOf(io, instance, options);
      return await check(io, instance, target, whose, options.json);
    });

  return cli;
}

function scoped(cli: Command): Command {
  return cli
    .option("--project <dir>", "For the workers of a project")
    .option("--session <name>", "For a session")
    .option("--json", "Print it as JSON");
}

function whoseOf(
  io: Io,
  instance: Instance,
  { project, session }: Options,
): Scoped {
  if (project !== undefined && session !== undefined) {
    throw new Failure("usage", "Pass either --project or --session");
  }
  if (session !== undefined) {
    const found = sessionOf(io, instance, session);
    return { session: found.name, of: found.project };
  }
  if (project === undefined) return {};
  const path = resolve(io.cwd(), String(project));
  try {
    return { project: realpathSync(path) };
  } catch {
    throw new Failure("notFound", `There is no directory ${path}`);
  }
}

/** Throws a `usage` Failure for a worker without a session, which only its project's rules name. */
function sessionOf(io: Io, instance: Instance, word: unknown): SessionRecord {
  const worker = readRecords(instance).find(({ worker }) => worker === word);
  if (worker && worker.session === null) {
    throw new Failure("usage", `"${word}" is a worker without a session`, {
      hint: `Use the rules of its project: --project ${worker.project.path}`,
    });
  }
  return namedSession(io, instance, word);
}

function showPolicy(
  io: Io,
  instance: Instance,
  whose: Scoped,
  json: boolean | undefined,
): void {
  const policy = policyOf(instance, whose);
  const { preset, from } = presetOf(policy, askingOf(whose));
  const levels = [
    ...Object.entries(policy.sessions).map(([name, scope]) =>
      [`session "${name}"`, scope] as const
    ),
    ...Object.entries(policy.projects).map(([path, scope]) =>
      [`project ${path}`, scope] as const
    ),
    ["the instance", policy.instance] as const,
  ];
  const rules = levels.flatMap(([level, scope]) =>
    (scope?.rules ?? []).map((rule) => ({ rule: ruleText(rule), from: level }))
  );
  const text = columns([
    [`preset ${preset}`, `from ${from}`, presetMeanings[preset]],
    ...rules.map(({ rule, from }) => [rule, `of ${from}`, ""]),
  ]);
  io.answer({ preset, presetFrom: from, rules }, text, json);
}

function changeRules(
  instance: Instance,
  whose: Whose,
  changed: Rule[],
  remove: boolean,
): void {
  const { preset, rules } = readScope(instance, whose);
  const texts = changed.map(ruleText);
  if (remove) {
    const present = rules.map(ruleText);
    const missing = texts.find((text) => !present.includes(text));
    if (missing !== undefined) {
      throw new Failure("notFound", `There is no rule "${missing}"`, {
        hint: "See the rules: claudy egress show, with the same options",
      });
    }
  }
  // The opposite rule for the same host is replaced.
  const opposite = changed.map((rule) =>
    ruleText({ ...rule, action: rule.action === "allow" ? "deny" : "allow" })
  );
  const left = rules.filter((rule) =>
    !texts.includes(ruleText(rule)) &&
    (remove || !opposite.includes(ruleText(rule)))
  );
  const next = remove ? left : [...left, ...changed];
  if (next.length > maxRules) {
    throw new Failure("resources", `More than ${maxRules} rules`, {
      hint: "Use wildcards, such as *.example.com.",
    });
  }
  writeScope(instance, whose, { ...(preset ? { preset } : {}), rules: next });
}

/** Throws a `usage` Failure if a host cannot be allowed. */
function refuseUseless(rules: Rule[]): void {
  for (const { host } of rules) {
    const what = unallowable(host);
    if (what === undefined) continue;
    throw new Failure("usage", `No rule can allow ${host}: it is ${what}`, {
      hint: what === "a loopback address"
        ? "Isolated workers reach their own localhost without a rule. For a server on this " +
          "host, allow an address of the host: claudy egress allow ADDRESS:PORT"
        : "Allow a name, or an address that is public or private.",
    });
  }
}

/** Another rule may decide in spite of the new one. */
function warnOfStronger(
  io: Io,
  instance: Instance,
  whose: Scoped,
  rules: Rule[],
): void {
  const policy = policyOf(instance, whose);
  for (const { host, port, action } of rules) {
    if (host.startsWith("*")) continue;
    const target = { host, port: port ?? 443 };
    const verdict = judgeHost(policy, askingOf(whose), target);
    if (verdict.allowed !== (action === "allow")) {
      io.log(`warning: ${verdict.sentence}`);
    }
  }
}

async function check(
  io: Io,
  instance: Instance,
  target: Target,
  whose: Scoped,
  json: boolean | undefined,
): Promise<number> {
  const answer = await presentAnswer(instance, target, whose, io.log);
  const secrets = answer.allowed ? secretsThere(instance, target, whose) : [];
  const lines = secrets.map(({ name, header }) =>
    `The proxy sets ${header} there from the secret ${name}.`
  );
  const names = secrets.map(({ name }) => name);
  io.answer(
    { ...target, ...answer, secrets: names },
    [answer.sentence, ...lines].join("\n"),
    json,
  );
  return answer.allowed && !answer.failed ? 0 : exitCode.unsafe;
}

function entriesText(entries: Entry[]): string {
  if (entries.length === 0) return "";
  return columns([
    ["TIME", "SESSION", "VERDICT", "HOST", "RULE", "UP", "DOWN"],
    ...entries.map((entry) => [
      entry.time.slice(0, 19).replace("T", " "),
      entry.session ?? entry.worker ?? "",
      entry.verdict,
      entry.port === null
        ? entry.host
        : targetText({ host: entry.host, port: entry.port }),
      [entry.rule, ...(entry.secrets ?? []).map((name) => `secret ${name}`)]
        .join(", "),
      binarySize(entry.bytesUp),
      binarySize(entry.bytesDown),
    ]),
  ]);
}
