// Finds the engine's endpoint as the Docker CLI does.

import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";

/** Where the engine listens, and where that is configured. */
export interface Endpoint {
  host: string;
  from: "DOCKER_HOST" | "context" | "default";
  /** Only of a tcp endpoint with TLS. */
  tls?: Tls;
}

/** Files that exist, and whether the engine's certificate must be valid. */
export interface Tls {
  directory: string;
  ca?: string;
  cert?: string;
  key?: string;
  verify: boolean;
}

/** What ssh is called with to reach the engine. */
export interface SshTarget {
  host: string;
  /** The user and the port. */
  options: string[];
  destination: string;
  /** On the engine's machine; "" is that of its Docker CLI. */
  socket: string;
}

export const defaultSocket = "/var/run/docker.sock";

const contextFile = v.object({ currentContext: v.optional(v.string()) });
const contextMeta = v.object({
  Endpoints: v.object({
    docker: v.object({
      Host: v.string(),
      SkipTLSVerify: v.optional(v.boolean(), false),
    }),
  }),
});

/**
 * The endpoint that the Docker CLI would use: DOCKER_HOST, then the context of
 * DOCKER_CONTEXT or of config.json, then the default socket.
 * https://docs.docker.com/engine/manage-resources/contexts/
 */
export function endpointOf(env: NodeJS.ProcessEnv): Endpoint {
  const directory = env["DOCKER_CONFIG"] ||
    join(env["HOME"] || homedir(), ".docker");
  const given = env["DOCKER_HOST"];
  if (given) {
    const host = given.includes("://") ? given : `tcp://${given}`;
    const verify = Boolean(env["DOCKER_TLS_VERIFY"]);
    const files = env["DOCKER_CERT_PATH"] || directory;
    return {
      host,
      from: "DOCKER_HOST",
      ...((verify || env["DOCKER_TLS"]) && host.startsWith("tcp:")
        ? { tls: tlsIn(files, verify) }
        : {}),
    };
  }
  const name = env["DOCKER_CONTEXT"] || currentContext(directory);
  if (!name || name === "default") {
    return { host: `unix://${defaultSocket}`, from: "default" };
  }
  // Loaded lazily: few users have a context.
  const { createHash } = process.getBuiltinModule("node:crypto");
  const digest = createHash("sha256").update(name).digest("hex");
  const file = join(directory, "contexts", "meta", digest, "meta.json");
  const meta = v.safeParse(contextMeta, readJson(file));
  if (!meta.success) {
    throw new Failure("engine", `Cannot read docker context "${name}"`, {
      hint: "See 'docker context ls', or set DOCKER_HOST.",
    });
  }
  const { Host, SkipTLSVerify } = meta.output.Endpoints.docker;
  const tls = tlsIn(
    join(directory, "contexts", "tls", digest, "docker"),
    !SkipTLSVerify,
  );
  const isTls = SkipTLSVerify || existsSync(tls.directory);
  return {
    host: Host,
    from: "context",
    ...(isTls && Host.startsWith("tcp:") ? { tls } : {}),
  };
}

function tlsIn(directory: string, verify: boolean): Tls {
  const files = Object.fromEntries(
    ["ca", "cert", "key"]
      .map((name) => [name, join(directory, `${name}.pem`)] as const)
      .filter(([, file]) => existsSync(file)),
  );
  return { directory, ...files, verify };
}

/** How to reach the engine of an ssh:// endpoint; undefined for others. */
export function sshTarget({ host }: Endpoint): SshTarget | undefined {
  if (!host.startsWith("ssh://")) return undefined;
  const url = URL.parse(host);
  if (!url?.hostname || url.password || url.search || url.hash) {
    const shown = host.replace(/:[^:@/]*@/, ":…@");
    throw new Failure("engine", `Cannot use the engine at ${shown}`, {
      hint: "Write its address as ssh://USER@HOST:PORT, without a password.",
    });
  }
  const { username, port, pathname, hostname } = url;
  return {
    host,
    options: [
      ...(username ? ["-l", decodeURIComponent(username)] : []),
      ...(port ? ["-p", port] : []),
    ],
    destination: hostname.replace(/^\[(.*)\]$/, "$1"),
    socket: decodeURIComponent(pathname).replace(/^\/$/, ""),
  };
}

/** The path of the engine's socket; the usual one if it is reached in another way. */
export function socketOf(endpoint: Endpoint): string {
  const { host } = endpoint;
  return (host.startsWith("unix://")
    ? host.slice("unix://".length)
    : sshTarget(endpoint)?.socket) || defaultSocket;
}

/** A hint for an engine that cannot be reached, depending on how it is configured. */
export function endpointHint(from: Endpoint["from"], fault: string): string {
  if (fault === "permission denied") {
    return "Join the docker group: sudo usermod -aG docker $USER, then log in again.";
  }
  return {
    DOCKER_HOST: "Start that engine, or unset DOCKER_HOST.",
    context: "Start that engine, or run: docker context use default",
    default: "Start it: claudy up. Or set DOCKER_HOST to a running engine.",
  }[from];
}

function currentContext(directory: string): string | undefined {
  const config = v.safeParse(
    contextFile,
    readJson(join(directory, "config.json")),
  );
  return config.success ? config.output.currentContext : undefined;
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined; // missing or invalid; the callers' schemas reject undefined
  }
}
