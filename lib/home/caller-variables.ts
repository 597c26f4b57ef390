// Variables of the caller's environment that determine how Claude reaches its API: proxy,
// certificates, gateway and cloud provider. A session gets them as files in its Claude
// home, like credentials, because many are.

import { isLocalUrl } from "../std/local-url.ts";
import { messageOf } from "../std/errors.ts";
import { readPlainFile } from "../std/plain-file.ts";
import { insideWorker } from "../instance/paths.ts";

/** Names in a Claude home; docker/claude-session.sh sets the variables. */
export const callerFile = ".caller.";
export const callerVariable = ".caller-env.";

export interface CallerVariables {
  /** Values in the worker; paths are those of `files`. */
  values: Record<string, string>;
  /** Contents of files that variables name, by their name in the Claude home. */
  files: Record<string, Uint8Array>;
  /** Variables that are not passed, and why. */
  left: string[];
}

const proxies = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
const noProxy = ["NO_PROXY", "no_proxy"];

/** Their values are files with certificates. */
export const certificateVariables = new Set([
  "NODE_EXTRA_CA_CERTS",
  "SSL_CERT_FILE",
  "CURL_CA_BUNDLE",
  "GIT_SSL_CAINFO",
  "REQUESTS_CA_BUNDLE",
]);

const models = /^ANTHROPIC_(SMALL_FAST_MODEL|DEFAULT_[A-Z]+_MODEL)$/;

interface Provider {
  /** Other variables count only if this one is set: they may serve other programs. */
  flag: string;
  /** Name of the provider's credentials, for people. */
  credentials: string;
  variables: RegExp;
  /** Variables that name a file. */
  files: string[];
  /** Variables and files that it can authenticate with. */
  oneOf: string[];
}

/** https://code.claude.com/docs/en/third-party-integrations */
const providers: Provider[] = [
  {
    flag: "CLAUDE_CODE_USE_BEDROCK",
    credentials: "profiles and logins in ~/.aws",
    variables:
      /^(AWS_(REGION|DEFAULT_REGION|ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|BEARER_TOKEN_BEDROCK)|ANTHROPIC_BEDROCK_BASE_URL|CLAUDE_CODE_SKIP_BEDROCK_AUTH|ANTHROPIC_SMALL_FAST_MODEL_AWS_REGION)$/,
    files: ["AWS_CA_BUNDLE"],
    oneOf: [
      "AWS_ACCESS_KEY_ID",
      "AWS_BEARER_TOKEN_BEDROCK",
      "CLAUDE_CODE_SKIP_BEDROCK_AUTH",
    ],
  },
  {
    flag: "CLAUDE_CODE_USE_VERTEX",
    credentials: "logins of gcloud in ~/.config/gcloud",
    variables:
      /^(ANTHROPIC_VERTEX_(PROJECT_ID|BASE_URL)|CLOUD_ML_REGION|VERTEX_REGION_\w+|CLAUDE_CODE_SKIP_VERTEX_AUTH|GOOGLE_CLOUD_PROJECT|GCLOUD_PROJECT)$/,
    files: ["GOOGLE_APPLICATION_CREDENTIALS"],
    oneOf: ["GOOGLE_APPLICATION_CREDENTIALS", "CLAUDE_CODE_SKIP_VERTEX_AUTH"],
  },
  {
    flag: "CLAUDE_CODE_USE_FOUNDRY",
    credentials: "logins of az in ~/.azure",
    variables:
      /^(ANTHROPIC_FOUNDRY_(RESOURCE|BASE_URL|API_KEY)|CLAUDE_CODE_SKIP_FOUNDRY_AUTH)$/,
    files: [],
    oneOf: ["ANTHROPIC_FOUNDRY_API_KEY", "CLAUDE_CODE_SKIP_FOUNDRY_AUTH"],
  },
];

const isOn = (text: string | undefined) =>
  /^(1|true|yes|on)$/i.test(text ?? "");

/** The variable that selects a cloud provider; undefined for the Anthropic API. */
export function providerOf(env: NodeJS.ProcessEnv): string | undefined {
  return providers.find(({ flag }) => isOn(env[flag]))?.flag;
}

const maxFileBytes = 4 * 1024 ** 2;

export function callerVariables(env: NodeJS.ProcessEnv): CallerVariables {
  const result: CallerVariables = { values: {}, files: {}, left: [] };
  const { values, left } = result;
  for (const [name, value] of Object.entries(env)) {
    if (value && models.test(name)) values[name] = value;
  }
  addProxies(env, result);
  for (const name of certificateVariables) addFile(env, name, result);
  for (const provider of providers) {
    const { flag, variables, files, oneOf, credentials } = provider;
    if (!isOn(env[flag])) continue;
    values[flag] = env[flag] ?? "";
    for (const [name, value] of Object.entries(env)) {
      if (!value || !variables.test(name)) continue;
      if (!isLocalUrl(value)) values[name] = value;
      else left.push(`${name}: workers have another localhost`);
    }
    for (const name of files) addFile(env, name, result);
    if (oneOf.every((name) => values[name] === undefined)) {
      left.push(`${credentials}: set one of ${oneOf.join(", ")}`);
    }
  }
  return result;
}

/** Names of the variables that a session would get, or be told about. */
export function callerVariableNames(env: NodeJS.ProcessEnv): string[] {
  const { values, left } = callerVariables(env);
  return Object.keys(env).filter((name) =>
    name in values || left.some((line) => line.startsWith(`${name}:`))
  ).sort();
}

/** The variables without those of proxies. */
export function withoutProxies(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const names = [...proxies, ...noProxy].map((name) => name.toUpperCase());
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !names.includes(name.toUpperCase())),
  );
}

/** Programs read the names in either case. */
function addProxies(
  env: NodeJS.ProcessEnv,
  { values, left }: CallerVariables,
): void {
  for (const name of proxies.flatMap((one) => [one, one.toLowerCase()])) {
    const value = env[name];
    if (!value) continue;
    // The scheme is optional, and any of several.
    const host = value.replace(/^\w+:\/\//, "");
    if (!isLocalUrl(`http://${host}`)) values[name] = value;
    // Without the value, which may contain a password.
    else left.push(`${name}: workers have another localhost`);
  }
  const given = noProxy.find((name) => env[name]);
  if (Object.keys(values).every((name) => !/_proxy$/i.test(name))) return;
  const hosts = given === undefined ? [] : [env[given]];
  // Services of the workers' network, and MCP servers.
  const text = [...hosts, "localhost", "127.0.0.1"].join(",");
  for (const name of noProxy) values[name] = text;
}

function addFile(
  env: NodeJS.ProcessEnv,
  name: string,
  { values, files, left }: CallerVariables,
): void {
  const path = env[name];
  if (!path) return;
  try {
    const limits = { maxBytes: maxFileBytes, followLinks: true };
    const file = `${callerFile}${name}`;
    files[file] = readPlainFile(path, limits);
    values[name] = `${insideWorker.claudeHome}/${file}`;
  } catch (error) {
    left.push(`${name}: ${messageOf(error)}`);
  }
}
