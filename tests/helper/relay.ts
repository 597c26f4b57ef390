// Starts the relay with an API of the test.

import { Buffer } from "node:buffer";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  request as requestHttp,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, createConnection, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { connect as connectTls } from "node:tls";
import { directNetwork } from "../../lib/egress/upstream.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";
import { readAuthorities } from "../../lib/relay/authority.ts";
import { ensureAuthority, newLeaf } from "../../lib/relay/certificates.ts";
import type { Entry } from "../../lib/relay/entry.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { type Grant, writeGrant } from "../../lib/relay/grant.ts";
import { apiHost } from "../../lib/relay/names.ts";
import { type Bounds, defaultBounds } from "../../lib/relay/relay/bounds.ts";
import { Relay } from "../../lib/relay/relay/relay.ts";
import type { Report, State } from "../../lib/relay/state.ts";
import { originHeader } from "../../lib/std/origin.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { createMeter } from "../../lib/usage/meter.ts";

export const worker = "a".repeat(64);
const other = "b".repeat(64);
const shared = "c".repeat(64);
export const placeholder = "sk-ant-hal9000-own";
export const real = "sk-ant-api03-real";

export const usage = {
  version: 1,
  paused: {},
  sessions: {},
  projects: {},
  maxPerMinute: 0,
};

export type Answer = (
  request: IncomingMessage,
  response: ServerResponse,
) => unknown;

export interface Asked {
  method?: string;
  path?: string;
  headers?: Record<string, string>;
  /** Without the placeholder. */
  anonymous?: boolean;
  body?: string | Uint8Array;
  /** The container; undefined for the shared network. */
  from?: string | undefined;
}

/** The authority of all tests: keys take some time. */
const root = mkdtempSync(join(tmpdir(), "relay-"));
export const home = homePaths(root);
export const instance = { home, owner: ownerOf(root), prefix: "hal9000" };
ensureHome(instance);
await ensureAuthority(instance);
export const authorities = readAuthorities(home);
export const leaf = await newLeaf(authorities);
process.on("exit", () => rmSync(root, { recursive: true }));

export function grantOf(change: Partial<Grant>): Grant {
  return {
    version: 1,
    home: "claude/s",
    placeholder,
    kind: "key",
    credential: null,
    baseUrl: null,
    headers: [],
    upstream: directNetwork.upstream,
    isolated: true,
    ...change,
  };
}

/** Adds a session with a worker, as a spawn does; returns how it reaches the relay. */
export function addSession(
  instance: Pick<Instance, "home" | "owner">,
  name: string,
  grant: Partial<Grant>,
) {
  const { home } = instance;
  const id = Buffer.from(name).toString("hex").padStart(64, "0");
  const claudeHome = `claude/${name}`;
  const placeholder = `sk-ant-hal9000-${name}`;
  mkdirSync(join(home.home, claudeHome), { recursive: true });
  writeRecord(instance, {
    version: 1,
    worker: name,
    container: id,
    session: name,
    project: { path: `/p/${name}`, uid: 1000, gid: 1000 },
    image: "image",
    born: "cold",
    home: claudeHome,
    ephemeral: false,
    secrets: null,
    memoryBytes: null,
    oomKilledAt: null,
    createdAt: new Date().toISOString(),
  });
  writeGrant(instance, grantOf({ home: claudeHome, placeholder, ...grant }));
  const connect = () => {
    const socket = createConnection(home.relayService);
    socket.on("error", () => {});
    socket.write(originHeader(id));
    const ca = readAuthorities(home).map(({ cert }) => cert);
    const secured = connectTls({ socket, servername: apiHost, ca });
    secured.on("error", () => {});
    secured.on("close", () => socket.destroy());
    return secured;
  };
  return { placeholder, connect };
}

export async function start(
  { answer, early, grant = {}, bounds = {}, state = {} }: {
    answer?: Answer;
    /** Answers before the body has arrived, if it returns true. */
    early?: (request: IncomingMessage, response: ServerResponse) => boolean;
    grant?: Partial<Grant>;
    bounds?: Partial<Bounds>;
    state?: Partial<State>;
  } = {},
) {
  const seen: { url: string; headers: string[]; body: Buffer }[] = [];
  const api = createHttpServer(async (request, response) => {
    if (early?.(request, response)) return;
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    seen.push({ url: request.url ?? "", headers: request.rawHeaders, body });
    if (answer) return void answer(request, response);
    response.setHeader("X-From", "api");
    response.end("reply");
  }).listen(0, "127.0.0.1");
  await once(api, "listening");
  const { port } = api.address() as AddressInfo;
  const baseUrl = `http://127.0.0.1:${port}`;
  const reports: Report[] = [];
  const relay = new Relay({
    bounds: { ...defaultBounds, unknownMs: 50, ...bounds },
    report: (report) => void reports.push(report),
    meter: createMeter((event) => void reports.push({ kind: "usage", event })),
  });
  const directory = mkdtempSync(join(root, "sockets-"));
  const path = join(directory, "443.sock");
  const server = relay.server().listen(path);
  await once(server, "listening");
  const client = (home: string) => ({
    worker: home,
    session: home,
    project: "/p",
    home,
  });
  const full: State = {
    leaf,
    credentials: { key: real, token: null, login: null },
    workers: {
      [worker]: client("claude/s"),
      [other]: client("claude/other"),
      [shared]: client("claude/shared"),
    },
    grants: {
      "claude/s": grantOf({ baseUrl, ...grant }),
      "claude/other": grantOf({
        baseUrl,
        home: "claude/other",
        placeholder: "sk-ant-hal9000-other",
      }),
      "claude/shared": grantOf({
        baseUrl,
        home: "claude/shared",
        placeholder: "sk-ant-hal9000-shared",
        isolated: false,
      }),
    },
    usage,
    ...state,
  };
  relay.setState(full);
  const opened = new Set<Socket>();
  const openRaw = (from: string | undefined) => {
    const raw = createConnection(path);
    opened.add(raw);
    // Data may be on its way when a test ends.
    raw.on("error", () => {});
    raw.write(originHeader(from ?? null));
    return raw;
  };
  const open = (from: string | undefined) => {
    const socket = connectTls({
      socket: openRaw(from),
      servername: "api.anthropic.com",
      ca: authorities.map(({ cert }) => cert),
    });
    socket.on("error", () => {});
    return socket;
  };
  const begin = (asked: Asked) => {
    const { method = "POST", path = "/v1/messages?beta=true", headers } = asked;
    return requestHttp({
      method,
      path,
      createConnection: () => open("from" in asked ? asked.from : worker),
      headers: {
        ...(asked.anonymous || headers?.["authorization"]
          ? {}
          : { "x-api-key": placeholder }),
        ...headers,
      },
    });
  };
  const ask = async (asked: Asked = {}) => {
    const request = begin(asked);
    request.end(asked.body ?? "");
    const [response] = await once(request, "response") as [IncomingMessage];
    let text = "";
    for await (const chunk of response) text += chunk;
    return { status: response.statusCode, headers: response.headers, text };
  };
  const entries = () =>
    reports.flatMap((report) =>
      report.kind === "entry" ? [report.entry as Entry] : []
    );
  return {
    relay,
    full,
    seen,
    reports,
    entries,
    openRaw,
    open,
    begin,
    ask,
    port,
    close: () => {
      api.closeAllConnections();
      api.close();
      server.close();
      for (const raw of opened) raw.destroy();
    },
  };
}

export const headerOf = (headers: string[], name: string) =>
  headers[headers.findIndex((one) => one.toLowerCase() === name) + 1];
