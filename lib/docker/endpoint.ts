// Finds the engine's endpoint as the Docker CLI does.

import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import * as v from "valibot";
import { Failure } from "../std/errors.ts";

/** Where the engine listens, and where that is configured. */
export interface Endpoint {
  host: string;
  from: "DOCKER_HOST" | "context" | "default";
}

export const defaultSocket = "/var/run/docker.sock";

const contextFile = v.object({ currentContext: v.optional(v.string()) });
const contextMeta = v.object({
  Endpoints: v.object({ docker: v.object({ Host: v.string() }) }),
});

/**
 * The endpoint that the Docker CLI would use: DOCKER_HOST, then the context of
 * DOCKER_CONTEXT or of config.json, then the default socket.
 * https://docs.docker.com/engine/manage-resources/contexts/
 */
export function endpointOf(env: NodeJS.ProcessEnv): Endpoint {
  if (env["DOCKER_HOST"]) {
    return { host: env["DOCKER_HOST"], from: "DOCKER_HOST" };
  }
  const directory = env["DOCKER_CONFIG"] ||
    join(env["HOME"] || homedir(), ".docker");
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
  return { host: meta.output.Endpoints.docker.Host, from: "context" };
}

/** The path of the socket on the engine's machine, for mounting it. */
export function socketOf(endpoint: Endpoint): string {
  return endpoint.host.startsWith("unix://")
    ? endpoint.host.slice("unix://".length)
    : defaultSocket;
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
