// Connects to the engine's API. dockerode is loaded only when it is needed.

import { readFileSync } from "node:fs";
import { Agent } from "node:http";
import process from "node:process";
import type Docker from "dockerode";
import * as v from "valibot";
import { connectionFault, statusOf, Unreachable } from "./docker-errors.ts";
import {
  defaultSocket,
  type Endpoint,
  endpointOf,
  sshTarget,
  type Tls,
} from "./endpoint.ts";
import { apiFailure, knownApi, minimumApi, pingEngine } from "./engine-info.ts";
import { Failure, messageOf } from "../std/errors.ts";
import { isAtLeast } from "../std/text.ts";

/** Connects to the engine of the Docker CLI. It is asked at the first call. */
export async function connect(
  env: NodeJS.ProcessEnv,
  { answerMs = defaultAnswerMs } = {},
): Promise<Docker> {
  const endpoint = endpointOf(env);
  const { default: Dockerode } = await import("dockerode");
  const options = await connectionOptions(endpoint, env);
  // dockerode would mix its own reading of the environment into the options.
  const { DOCKER_HOST } = process.env;
  delete process.env["DOCKER_HOST"];
  const docker = new Dockerode(options);
  const own = options.agent ? undefined : new Agent({ keepAlive: true });
  const { modem } = new Dockerode({ ...options, ...(own && { agent: own }) });
  if (DOCKER_HOST !== undefined) process.env["DOCKER_HOST"] = DOCKER_HOST;
  setDeadlines(docker, { modem, agent: own }, endpoint, answerMs);
  negotiateApi(docker, endpoint);
  return docker;
}

/** Longer than a busy engine takes to answer a question, and a login by ssh. */
const defaultAnswerMs = 60_000;

/**
 * Ends questions that the engine does not answer in time, unless the caller does that. What
 * may take long has no deadline: changes, streams, and the sizes of all objects.
 */
function setDeadlines(
  docker: Docker,
  questions: { modem: Docker["modem"]; agent: Agent | undefined },
  { host }: Endpoint,
  answerMs: number,
): void {
  const dial = docker.modem.dial.bind(docker.modem) as Dial;
  const ask = questions.modem.dial.bind(questions.modem) as Dial;
  docker.modem.dial = ((options, callback) => {
    const { path, method, isStream, abortSignal } = options;
    const mayTakeLong = method !== "GET" || abortSignal !== undefined ||
      (isStream && path !== "/_ping") || /\/system\/df\b/.test(path);
    if (mayTakeLong) return dial(options, callback);
    const late = new AbortController();
    const timer = setTimeout(() => {
      callback(
        new Unreachable(host, `no answer within ${answerMs / 1000} s`),
        null,
      );
      late.abort();
      // Deno sends the request again, without the signal, if the connection was used before.
      setTimeout(() => questions.agent?.destroy(), 100);
    }, answerMs);
    ask({ ...options, abortSignal: late.signal }, (error, answer) => {
      clearTimeout(timer);
      if (!late.signal.aborted) callback(error, answer);
    });
  }) as Dial;
}

async function connectionOptions(
  endpoint: Endpoint,
  env: NodeJS.ProcessEnv,
): Promise<Docker.DockerOptions & { agent?: Agent }> {
  const { host, tls } = endpoint;
  if (host.startsWith("unix://")) {
    return { socketPath: host.slice("unix://".length) || defaultSocket };
  }
  const target = sshTarget(endpoint);
  if (target) {
    const { SshAgent } = await import("./ssh.ts");
    return {
      host: "docker",
      protocol: "http",
      agent: new SshAgent(target, env),
    };
  }
  const url = URL.parse(host);
  if (url?.protocol !== "tcp:" || !url.hostname) {
    throw new Failure("engine", `Cannot use the engine at ${host}`, {
      hint: "Its address must be unix://PATH, tcp://HOST:PORT or ssh://HOST.",
    });
  }
  return {
    host: url.hostname,
    port: url.port || (tls ? 2376 : 2375),
    protocol: tls ? "https" : "http",
    ...(tls ? { agent: await tlsAgent(tls) } : {}),
  };
}

async function tlsAgent({ ca, cert, key, verify }: Tls): Promise<Agent> {
  const { Agent } = await import("node:https");
  const read = (file?: string) => file && readFileSync(file);
  return new Agent({
    ...(ca ? { ca: read(ca) } : {}),
    ...(cert && key ? { cert: read(cert), key: read(key) } : {}),
    rejectUnauthorized: verify,
  });
}

/**
 * Before the first call, asks for the engine's API, and uses the latest that both have.
 * Errors of that first contact mean that the engine is out of reach.
 */
function negotiateApi(docker: Docker, endpoint: Endpoint): void {
  const { modem } = docker;
  const dial = modem.dial.bind(modem) as Dial;
  let prefix: string | undefined;
  const negotiate = async (signal?: AbortSignal) => {
    const { api } = await pingEngine(docker, signal).catch((error) => {
      throw asUnreachable(error, endpoint);
    });
    if (api === undefined || !apiPattern.test(api)) {
      await engineVersion(docker, endpoint);
      prefix = ""; // the engine takes its own
      return;
    }
    if (!isAtLeast(api, minimumApi)) {
      throw apiFailure(await engineVersion(docker, endpoint));
    }
    prefix = `/v${isAtLeast(api, knownApi) ? knownApi : api}`;
  };
  modem.dial = (async (options, callback) => {
    // These two are answered whatever the version is.
    if (["/_ping", "/version"].includes(options.path)) {
      return dial(options, callback);
    }
    try {
      if (prefix === undefined) await negotiate(options.abortSignal);
    } catch (error) {
      return callback(error, null);
    }
    const path = `${prefix}${options.path}`;
    dial({ ...options, path }, (error, answer) => {
      if (!error && isList.test(options.path) && !Array.isArray(answer)) {
        return callback(new Unreachable(endpoint.host, notAnEngine), null);
      }
      if (statusOf(error) !== 400) return callback(error, answer);
      // The engine may have no version as old as the known ones.
      engineVersion(docker, endpoint).then(apiFailure, () => undefined)
        .then((failure) => callback(failure ?? error, answer));
    });
  }) as Dial;
}

/** Requests whose answer is a list. */
const isList = /^\/(containers|images)\/json/;

const notAnEngine = "what answers there is not an engine";

const apiPattern = /^\d+\.\d+$/;

const versionSchema = v.object({
  Version: v.string(),
  ApiVersion: v.pipe(v.string(), v.regex(apiPattern)),
  MinAPIVersion: v.optional(v.string()),
  Arch: v.optional(v.string(), ""),
});

/** The engine's version. Throws if something else answers at its address. */
export async function engineVersion(
  docker: Docker,
  { host }: Pick<Endpoint, "host">,
): Promise<v.InferOutput<typeof versionSchema>> {
  const version = v.safeParse(versionSchema, await docker.version());
  if (version.success) return version.output;
  throw new Unreachable(host, notAnEngine);
}

type Dial = (
  options: {
    path: string;
    method?: string;
    isStream?: boolean;
    abortSignal?: AbortSignal;
  },
  callback: (error: unknown, answer: unknown) => void,
) => void;

function asUnreachable(error: unknown, { host, tls }: Endpoint): unknown {
  const { name, json } = error as Error & { json?: { message?: string } };
  const isAborted = name === "AbortError" || name === "TimeoutError";
  if (isAborted || connectionFault(error) !== undefined) return error;
  const hint = tls
    ? `Check ca.pem, cert.pem and key.pem in ${tls.directory}: docker version`
    : host.startsWith("tcp:")
    ? "If it uses TLS: export DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=DIRECTORY"
    : undefined;
  return new Unreachable(host, json?.message ?? messageOf(error), {
    cause: error,
    hint,
  });
}
