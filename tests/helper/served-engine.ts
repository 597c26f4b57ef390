// Serves the in-memory engine of fake-engine.ts on a unix socket, for commands that
// connect to an engine themselves.

import { createServer, type IncomingMessage } from "node:http";
import { join } from "node:path";
import { Readable } from "node:stream";
import type { Docker } from "../../lib/docker/docker.ts";
import type { Main } from "../../lib/cli/cli.ts";
import { type FakeInstance, fakeInstance } from "./fake-engine.ts";
import { type Ran, runMain } from "./run-main.ts";

export interface Served extends FakeInstance {
  /** Of the engine. */
  socket: string;
  /** Runs a command in the instance. */
  run: (main: Main, argv: string[], options?: RunOptions) => Promise<Ran>;
  close: () => Promise<void>;
}

type RunOptions = Parameters<typeof runMain>[2];

/** The calls of the engine's API, as dockerode names them. */
// deno-lint-ignore no-explicit-any -- the fake has only some of its methods
type Call = (docker: any, request: Request) => Promise<unknown>;

interface Request {
  /** The parts of the path that the route's groups match. */
  parts: string[];
  query: URLSearchParams;
  body: Record<string, unknown>;
}

const filters = ({ query }: Request) =>
  JSON.parse(query.get("filters") ?? "{}");

const routes: [method: string, path: RegExp, call: Call][] = [
  [
    "GET",
    /^\/containers\/json$/,
    (docker, request) => docker.listContainers({ filters: filters(request) }),
  ],
  [
    "POST",
    /^\/containers\/create$/,
    async (docker, { query, body }) => {
      const request = { _query: { name: query.get("name") }, _body: body };
      const { id } = await docker.createContainer(request);
      return { Id: id };
    },
  ],
  [
    "GET",
    /^\/containers\/([^/]+)\/json$/,
    (docker, { parts: [name] }) => docker.getContainer(name).inspect(),
  ],
  [
    "GET",
    /^\/containers\/([^/]+)\/archive$/,
    (docker, { parts: [name], query }) =>
      docker.getContainer(name).getArchive({ path: query.get("path") }),
  ],
  [
    "GET",
    /^\/containers\/([^/]+)\/(logs|top|stats)$/,
    (docker, { parts: [name, what = ""] }) =>
      docker.getContainer(name)[what]({}),
  ],
  [
    "POST",
    /^\/containers\/([^/]+)\/(start|stop|restart|unpause|update|attach)$/,
    (docker, { parts: [name, what = ""], body }) =>
      docker.getContainer(name)[what](body),
  ],
  [
    "POST",
    /^\/containers\/([^/]+)\/rename$/,
    (docker, { parts: [name], query }) =>
      docker.getContainer(name).rename({ name: query.get("name") }),
  ],
  [
    "DELETE",
    /^\/containers\/([^/]+)$/,
    (docker, { parts: [name] }) => docker.getContainer(name).remove(),
  ],
  [
    "GET",
    /^\/images\/json$/,
    (docker, request) => docker.listImages({ filters: filters(request) }),
  ],
  [
    "GET",
    /^\/images\/(.+)\/json$/,
    (docker, { parts: [name] }) => docker.getImage(name).inspect(),
  ],
  [
    "DELETE",
    /^\/images\/(.+)$/,
    async (docker, { parts: [name] }) => {
      await docker.getImage(name).remove();
      return [];
    },
  ],
  ["GET", /^\/volumes$/, (docker) => docker.listVolumes()],
  [
    "GET",
    /^\/volumes\/([^/]+)$/,
    (docker, { parts: [name] }) => docker.getVolume(name).inspect(),
  ],
  [
    "DELETE",
    /^\/volumes\/([^/]+)$/,
    (docker, { parts: [name] }) => docker.getVolume(name).remove(),
  ],
  [
    "POST",
    /^\/volumes\/create$/,
    async (docker, { body }) => {
      await docker.createVolume(body);
      return body;
    },
  ],
  ["GET", /^\/system\/df$/, (docker) => docker.df()],
  ["GET", /^\/info$/, (docker) => docker.info()],
  ["GET", /^\/_ping$/, () => Promise.resolve(new TextEncoder().encode("OK"))],
  ["GET", /^\/version$/, (docker) => docker.version()],
  [
    "POST",
    /^\/containers\/([^/]+)\/exec$/,
    async (docker, { parts: [name], body }) => {
      const Id = crypto.randomUUID();
      execs.set(Id, await docker.getContainer(name).exec(body));
      return { Id };
    },
  ],
  [
    "POST",
    /^\/exec\/([^/]+)\/start$/,
    (_, { parts: [id = ""] }) => execOf(id).start(),
  ],
  [
    "GET",
    /^\/exec\/([^/]+)\/json$/,
    (_, { parts: [id = ""] }) => execOf(id).inspect(),
  ],
];

interface Exec {
  start: () => Promise<unknown>;
  inspect: () => Promise<unknown>;
}

const execs = new Map<string, Exec>();

function execOf(id: string): Exec {
  return execs.get(id) as Exec;
}

async function bodyOf(request: IncomingMessage): Promise<Request["body"]> {
  let text = "";
  for await (const chunk of request) text += chunk;
  return text === "" ? {} : JSON.parse(text);
}

async function answerTo(
  docker: Docker,
  request: IncomingMessage,
): Promise<unknown> {
  const { pathname, searchParams: query } = new URL(
    request.url ?? "",
    "http://engine",
  );
  for (const [method, path, call] of routes) {
    const plain = pathname.replace(/^\/v1\.\d+\//, "/");
    const found = path.exec(decodeURIComponent(plain));
    if (!found || method !== request.method) continue;
    const parts = found.slice(1);
    return await call(docker, { parts, query, body: await bodyOf(request) });
  }
  const message = `The fake engine has no ${request.method} ${pathname}`;
  throw Object.assign(new Error(message), { statusCode: 501 });
}

/** An instance whose engine commands can reach. */
export async function serveEngine(): Promise<Served> {
  const fake = fakeInstance();
  const server = createServer(async (request, response) => {
    try {
      const answer = await answerTo(fake.engine.docker, request);
      if (answer instanceof Readable) {
        response.flushHeaders();
        return answer.pipe(response);
      }
      const raw = answer instanceof Uint8Array;
      if (answer === undefined) response.writeHead(204).end();
      else response.end(raw ? answer : JSON.stringify(answer));
    } catch (error) {
      const { statusCode = 500, message } = error as Error & {
        statusCode?: number;
      };
      response.writeHead(statusCode, { "content-type": "application/json" });
      response.end(JSON.stringify({ message }));
    }
  });
  const socket = join(fake.root, "engine.sock");
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const { settings } = fake.instance;
  const env = {
    HOME: join(fake.root, "user"),
    DOCKER_HOST: `unix://${socket}`,
    HAL9000_HOME: fake.instance.home.home,
    HAL9000_PREFIX: settings.HAL9000_PREFIX,
    HAL9000_IMAGE_REPO: settings.HAL9000_IMAGE_REPO,
    WORKER_SECCOMP: "engine",
    WORKER_CPUS: "1",
  };
  return {
    ...fake,
    socket,
    run: (main, argv, options = {}) =>
      runMain(main, argv, { ...options, env: { ...env, ...options.env } }),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      fake.end();
    },
  };
}
