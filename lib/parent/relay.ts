// Runs the relay: gives it the credentials and the sessions' grants, and keeps its log.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { loginFile, type LoginRefresh, readLogin } from "../home/login.ts";
import type { Instance } from "../instance/instance.ts";
import { Journal, maxEntryBytes } from "../instance/journal.ts";
import { readRecords } from "../instance/record.ts";
import { readAuthorities } from "../relay/authority.ts";
import {
  ensureAuthority,
  type Leaf,
  leafRenewMs,
  newLeaf,
} from "../relay/certificates.ts";
import { entrySchema } from "../relay/entry.ts";
import { type Grant, readGrants, removeGrant } from "../relay/grant.ts";
import { relayAnswers } from "../relay/answers.ts";
import { reportSchema, type State } from "../relay/state.ts";
import { type Ledger, openLedger } from "../usage/ledger.ts";
import { messageOf } from "../std/errors.ts";
import { parseJson } from "../std/json.ts";
import type { Log } from "../std/log.ts";
import { fileSignature } from "../std/plain-file.ts";
import { attempts, keepLines } from "./attempts.ts";
import type { ChildSpec } from "./supervisor.ts";

type Parent = Pick<Instance, "home" | "owner" | "prefix">;

/** Changes apply within this time, and the time to read all records and grants. */
const everyMs = 100;

/** After a failure: making keys takes time. */
const retryMs = 1000;

/** Also without a visible change, in case that one was missed. */
const fullEveryMs = 10_000;

export function relayChild(
  instance: Parent,
  login: LoginRefresh,
  log: Log,
): ChildSpec {
  const ledger = openLedger(instance, log);
  const journal = new Journal(
    instance.home.relayLog,
    instance.owner,
    entrySchema,
  );
  return {
    name: "relay",
    command: ["/scripts/anthropic-relay"],
    logFile: instance.home.childLog("relay"),
    attend: (input, output) => {
      void feedRelay(instance, ledger, input, log);
      const { relayLog } = instance.home;
      keepLines(
        output,
        2 * maxEntryBytes,
        attempts(relayLog, log),
        (line) => keepReport(instance, { journal, login, ledger }, line),
      ).catch((error) => log(`warning: ${relayLog}: ${messageOf(error)}`));
    },
    watch: {
      answers: () => relayAnswers(instance),
      everyMs: 5000,
      silentMs: 15_000,
      startMs: 15_000,
    },
  };
}

function keepReport(
  { home }: Parent,
  { journal, login, ledger }: {
    journal: Journal<unknown>;
    login: LoginRefresh;
    ledger: Ledger;
  },
  line: string,
): void {
  const report = parseJson(reportSchema, line);
  if (report?.kind === "entry") journal.append(JSON.stringify(report.entry));
  if (report?.kind === "usage") ledger.event(report.event);
  if (report?.kind === "rejected") {
    const token = readLogin(home)?.claudeAiOauth.accessToken;
    if (token !== undefined && digestOf(token) === report.digest) {
      login.refuse(token);
    }
  }
}

function digestOf(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

/** Writes the state to the relay's input as lines, until that closes. */
async function feedRelay(
  instance: Parent,
  ledger: Ledger,
  input: Writable,
  log: Log,
): Promise<void> {
  // The relay has ended; the supervisor starts another.
  input.on("error", () => {});
  const { home } = instance;
  let leaf: Leaf | undefined;
  let seen = "";
  let sent = "";
  let readAt = -Infinity;
  const round = async () => {
    if (!leaf || Date.now() - leaf.madeAt > leafRenewMs) {
      await ensureAuthority(instance);
      leaf = await newLeaf(readAuthorities(home));
    }
    const usage = ledger.state();
    const now = signature(instance) + JSON.stringify(usage);
    if (now !== seen || performance.now() - readAt >= fullEveryMs) {
      if (performance.now() - readAt >= fullEveryMs) dropGrants(instance);
      const text = JSON.stringify({
        ...relayState(instance, leaf),
        usage,
      });
      if (text !== sent) input.write(`${text}\n`);
      sent = text;
      seen = now;
      readAt = performance.now();
    }
  };
  const attempt = attempts("The relay gets no credentials", log);
  while (input.writable) {
    await sleep(await attempt(round) ? everyMs : retryMs);
  }
}

/** Removes the grants of sessions and workers that were removed. */
function dropGrants({ home }: Parent): void {
  for (const grant of readGrants({ home })) {
    if (!existsSync(join(home.home, grant.home))) {
      removeGrant({ home }, grant.home);
    }
  }
}

/** All that the relay has to know. */
export function relayState(
  instance: Parent,
  { cert, key }: Pick<Leaf, "cert" | "key">,
): State {
  const { home } = instance;
  const granted = new Map(readGrants(instance).map((one) => [one.home, one]));
  const workers: State["workers"] = {};
  const grants: Record<string, Grant> = {};
  for (const record of readRecords(instance)) {
    const { container, worker, session, project: { path } } = record;
    workers[container] = { worker, session, project: path, home: record.home };
    const grant = granted.get(record.home);
    if (grant) grants[record.home] = grant;
  }
  // The relay gets no credential that no session uses.
  const kinds = Object.values(grants).map(({ kind }) => kind);
  const login = kinds.includes("login") ? readLogin(home) : undefined;
  return {
    leaf: { cert, key },
    credentials: {
      key: kinds.includes("key") ? textOf(home.anthropicKey) : null,
      token: kinds.includes("token") ? textOf(home.claudeToken) : null,
      login: login?.claudeAiOauth.accessToken ?? null,
    },
    workers,
    grants,
  };
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8").trim() || null;
  } catch {
    return null; // it is not stored
  }
}

/** Differs after each change of a file. */
function signature({ home }: Parent): string {
  const paths = [
    home.sessions,
    home.relayGrants,
    home.relayAuthorities,
    home.anthropicKey,
    home.claudeToken,
    join(home.login, loginFile),
  ];
  return paths.map(fileSignature).join("\n");
}
