// The settings file that a session's Claude is started with. It takes precedence over the
// project's settings (https://code.claude.com/docs/en/settings, "Settings precedence"),
// so a project cannot redirect requests or replace credentials.

import { join } from "node:path";
import * as v from "valibot";
import type { SignIn } from "./credentials.ts";
import type { Instance } from "../instance/instance.ts";
import { inDirectory } from "../std/directory.ts";
import { Failure } from "../std/errors.ts";
import { type Owner, replaceFile } from "../std/owned.ts";
import { readJson } from "../std/json.ts";
import { clearPath } from "../std/plain-file.ts";
import {
  credentialHelpers,
  isForbiddenVariable,
} from "../project/project-config.ts";
import { insideWorker } from "../instance/paths.ts";

/** In the Claude home. A file, since values may be secret and arguments are visible. */
const settingsFile = "hal9000-settings.json";

const proxies = ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/** Set even if the project does not set them now: Claude watches its settings files. */
const fixedVariables = [
  "ANTHROPIC_API_KEY",
  "ANTHROPIC_AUTH_TOKEN",
  "ANTHROPIC_BASE_URL",
  "ANTHROPIC_BEDROCK_BASE_URL",
  "ANTHROPIC_CUSTOM_HEADERS",
  "ANTHROPIC_FOUNDRY_BASE_URL",
  "ANTHROPIC_UNIX_SOCKET",
  "ANTHROPIC_VERTEX_BASE_URL",
  "AWS_ENDPOINT_URL",
  "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
  "CLAUDE_CODE_API_BASE_URL",
  "CLAUDE_CODE_OAUTH_TOKEN",
  "CLAUDE_CODE_USE_BEDROCK",
  "CLAUDE_CODE_USE_FOUNDRY",
  "CLAUDE_CODE_USE_VERTEX",
  "NODE_EXTRA_CA_CERTS",
  "OTEL_EXPORTER_OTLP_ENDPOINT",
  ...proxies,
  ...proxies.map((name) => name.toLowerCase()),
];

/** Values for variables for which an empty value does not mean unset. */
const defaults = {
  CLAUDE_CONFIG_DIR: insideWorker.claudeHome,
  CLAUDE_SECURESTORAGE_CONFIG_DIR: insideWorker.claudeHome,
};

export interface StartRequest {
  signIn: SignIn;
  /** Claude's environment: the container's variables and those passed at its start. */
  env: Record<string, string>;
  /** Whether the project's configuration is approved. */
  approved: boolean;
  /** Names of settings and variables that the project sets but must not. */
  forbidden: string[];
  /** Arguments for Claude, given by the user. */
  arguments: string[];
}

const settingsSchema = v.looseObject({
  env: v.optional(v.record(v.string(), v.unknown()), {}),
});

type ClaudeSettings = v.InferOutput<typeof settingsSchema>;

/**
 * Writes the settings file into a session's Claude home; returns the arguments for
 * Claude.
 */
export function layOutSettings(
  claudeHome: string,
  owner: Owner,
  request: StartRequest,
): string[] {
  const { own, rest } = ownSettings(request.arguments);
  const settings = startSettings(request, homeSettings(claudeHome), own);
  const text = JSON.stringify(settings);
  replaceFile(join(claudeHome, settingsFile), text, owner, { sync: false });
  return settingsArguments(request.approved, rest);
}

/**
 * Removes the settings files, which may contain credentials, of all sessions that do not
 * run. They are written at each start; a running Claude reads changes.
 */
export function forgetSettings(
  { home }: Pick<Instance, "home">,
  running: ReadonlySet<string | null>,
): void {
  inDirectory(home.claude, (homes) => {
    for (const { name, kind } of homes.entries()) {
      if (kind !== "directory" || running.has(name)) continue;
      const claudeHome = homes.enter(name);
      if (claudeHome) clearPath(claudeHome.at(settingsFile));
      claudeHome?.close();
    }
  });
}

/** Arguments that start Claude with the settings file. */
export function settingsArguments(
  approved: boolean,
  given: string[] = [],
): string[] {
  return [
    ...(approved ? [] : ["--setting-sources", "user"]),
    ...given,
    // Claude uses only the last --settings.
    ...["--settings", `${insideWorker.claudeHome}/${settingsFile}`],
  ];
}

/** `home` is the session's settings.json, `own` the user's --settings. */
export function startSettings(
  { signIn, env, approved, forbidden }: Omit<StartRequest, "arguments">,
  home: ClaudeSettings,
  own: ClaudeSettings = { env: {} },
): Record<string, unknown> {
  const known: Record<string, unknown> = {
    ...defaults,
    ...env,
    ...signIn.env,
    ...home.env,
    ...signIn.variables,
  };
  const variables = new Set([
    ...fixedVariables,
    ...Object.keys(defaults),
    ...forbidden.filter(isForbiddenVariable),
  ]);
  const fixed = [...variables].map((name) => [name, known[name] ?? ""]);
  const helpers = credentialHelpers.map((name) => [name, home[name] ?? ""]);
  return {
    ...Object.fromEntries(helpers),
    ...(signIn.apiKeyHelper ? { apiKeyHelper: signIn.apiKeyHelper } : {}),
    enableAllProjectMcpServers: approved,
    ...own,
    env: {
      ...Object.fromEntries(fixed),
      // .claude/scheduled_tasks.json is read regardless of --setting-sources.
      ...(approved ? {} : { CLAUDE_CODE_DISABLE_CRON: "1" }),
      ...own.env,
    },
  };
}

/** A worker can write this file, but it only affects the worker's own session. */
function homeSettings(claudeHome: string): ClaudeSettings {
  const path = join(claudeHome, "settings.json");
  // Empty if the file is missing or invalid: Claude ignores it then, too.
  return readJson(path, settingsSchema, maxSettingsBytes) ?? { env: {} };
}

const maxSettingsBytes = 1024 * 1024;

/** Removes --settings from the user's arguments, to merge it into the settings file. */
function ownSettings(
  given: string[],
): { own: ClaudeSettings | undefined; rest: string[] } {
  const at = given.findIndex((word) => /^--settings(=|$)/.test(word));
  const [word = ""] = at < 0 ? [] : given.slice(at);
  if (word === "") return { own: undefined, rest: given };
  const text = word.includes("=")
    ? word.slice(word.indexOf("=") + 1)
    : given[at + 1] ?? "";
  const parsed = v.safeParse(
    v.pipe(v.string(), v.parseJson(), settingsSchema),
    text,
  );
  if (!parsed.success) {
    throw new Failure(
      "usage",
      "Cannot pass --settings to Claude: not a JSON object",
      {
        hint: "Pass the settings as JSON text, not as a file path.",
      },
    );
  }
  const rest = given.filter((_, index) =>
    index !== at && (word.includes("=") || index !== at + 1)
  );
  return { own: parsed.output, rest };
}
