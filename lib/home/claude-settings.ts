// The settings that Claude of a session is started with. They rank above those of a
// project (https://code.claude.com/docs/en/settings, "Settings precedence"): whatever
// a project says, requests go where the session's own configuration sends them.

import { join } from "node:path";
import * as v from "valibot";
import type { SignIn } from "./credentials.ts";
import { Failure } from "../std/errors.ts";
import { type Owner, replaceFile } from "../std/owned.ts";
import { readJson } from "../std/json.ts";
import {
  credentialHelpers,
  isForbiddenVariable,
} from "../project/project-config.ts";
import { insideWorker } from "../instance/paths.ts";

/** Within the Claude home: a file, since values may be secret and arguments are not. */
const settingsFile = "hal9000-settings.json";

const proxies = ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];

/** Fixed even where no project sets them at present: Claude follows its settings. */
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

/** Where an empty value would not be taken for an unset one. */
const defaults = {
  CLAUDE_CONFIG_DIR: insideWorker.claudeHome,
  CLAUDE_SECURESTORAGE_CONFIG_DIR: insideWorker.claudeHome,
};

export interface StartRequest {
  signIn: SignIn;
  /** What Claude finds in its environment: of its start, and of its container. */
  env: Record<string, string>;
  /** Whether the project's own configuration takes effect. */
  approved: boolean;
  /** What the project sets and must not. */
  forbidden: string[];
  /** Claude's arguments as the user gave them. */
  arguments: string[];
}

const settingsSchema = v.looseObject({
  env: v.optional(v.record(v.string(), v.unknown()), {}),
});

type ClaudeSettings = v.InferOutput<typeof settingsSchema>;

/**
 * Writes the settings file into a session's Claude home; gives the arguments that
 * Claude is to be started with.
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
  return [
    ...(request.approved ? [] : ["--setting-sources", "user"]),
    ...rest,
    // Claude uses the last one alone.
    ...["--settings", `${insideWorker.claudeHome}/${settingsFile}`],
  ];
}

/** `home` is what the session's own settings.json says, `own` what the user adds. */
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
      // Tasks of .claude/scheduled_tasks.json run whatever the sources are.
      ...(approved ? {} : { CLAUDE_CODE_DISABLE_CRON: "1" }),
      ...own.env,
    },
  };
}

/** What a worker wrote there decides about that worker's session alone. */
function homeSettings(claudeHome: string): ClaudeSettings {
  const path = join(claudeHome, "settings.json");
  // Where there is none, or none that Claude can read either.
  return readJson(path, settingsSchema, maxSettingsBytes) ?? { env: {} };
}

const maxSettingsBytes = 1024 * 1024;

/** Takes --settings out of the user's arguments, to be merged with ours. */
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
        hint: "Give the settings as JSON text, not as a file.",
      },
    );
  }
  const rest = given.filter((_, index) =>
    index !== at && (word.includes("=") || index !== at + 1)
  );
  return { own: parsed.output, rest };
}
