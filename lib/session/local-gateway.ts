// Finds out where a worker reaches an ANTHROPIC_BASE_URL on the caller's localhost.

import { connect } from "node:net";
import type { Instance } from "../instance/instance.ts";
import { configuredServers } from "../mcp/offer.ts";
import { Failure } from "../std/errors.ts";
import { isLocalUrl } from "../std/local-url.ts";

const variable = "ANTHROPIC_BASE_URL";

/**
 * The caller's environment, with the URL that a worker uses. Throws a `failed` Failure if
 * the server runs on the caller's localhost, and the MCP gateway does not carry it into
 * the workers' network. A URL that nothing on the caller's localhost serves is meant for
 * the workers' own localhost.
 */
export async function workerEnvironment(
  instance: Pick<Instance, "home" | "settings" | "self">,
  env: NodeJS.ProcessEnv,
  { standalone = false } = {},
): Promise<NodeJS.ProcessEnv> {
  const given = env[variable];
  // The parent's localhost is not the caller's.
  if (!given || !isLocalUrl(given) || instance.self) return env;
  const url = new URL(given);
  const served = [...configuredServers(instance, () => {}).values()]
    .find((server) => server.api && portOf(server.url ?? "") === portOf(given));
  if (served && !standalone) {
    url.protocol = "http:";
    url.host = `127.0.0.1:${served.port}`;
    return { ...env, [variable]: url.href.replace(/\/$/, "") };
  }
  if (!await answers(portOf(given))) return env;
  throw new Failure(
    "failed",
    `Cannot use ${variable}=${url.origin}: it is on this machine's localhost, ` +
      "and workers have another one",
    {
      hint: standalone
        ? "Omit --legacy: a container with its own network cannot reach it."
        : `Carry it in: claudy mcp add api-gateway --api --url ${url.origin}`,
    },
  );
}

function portOf(url: string): number {
  if (!URL.canParse(url)) return 0; // with variables
  const { port, protocol } = new URL(url);
  return Number(port) || (protocol === "https:" ? 443 : 80);
}

const connectTimeoutMs = 500;

/** Whether something on this machine's localhost accepts connections. */
function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "localhost" });
    const end = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.setTimeout(connectTimeoutMs, () => end(false));
    socket.once("connect", () => end(true));
    socket.once("error", () => end(false));
  });
}
