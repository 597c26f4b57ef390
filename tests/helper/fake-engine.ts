// An in-memory engine and an instance that uses it, for the unit tests. Containers are
// created, started, renamed and removed as in Docker, but nothing runs in them.

import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { createConnection } from "node:net";
import { join } from "node:path";
import { Duplex, PassThrough, Readable } from "node:stream";
import { type Docker, holderOf } from "../../lib/docker/docker.ts";
import { readSettings } from "../../lib/instance/config.ts";
import type { Instance } from "../../lib/instance/instance.ts";
import { instanceNames, label } from "../../lib/instance/labels.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { ensureHome } from "../../lib/instance/volumes.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { gatePassed } from "../../lib/worker/gate.ts";

export interface FakeContainer {
  id: string;
  name: string;
  spec: Docker.ContainerCreateOptions;
  /** Id of its image. @default that of the image's name */
  image?: string | undefined;
  state: "created" | "running" | "paused" | "exited";
  createdAt: string;
  startedAt: string;
  exitCode: number;
  oomKilled: boolean;
  log: string;
  /** Programs that run in it besides the idle command. */
  programs: string[];
}

/** What is attached to a container. */
export interface Caller {
  /** Prints a line on stderr. */
  tell: (line: string) => void;
  /** The next line of stdin. */
  nextLine: () => Promise<string>;
}

export class FakeEngine {
  readonly containers: FakeContainer[] = [];
  readonly volumes = new Map<string, object>();
  readonly images = new Map<string, object>();
  /** Requests that changed something: "stop NAME", "remove NAME". */
  readonly asked: string[] = [];
  /** For a request, as in `asked`: the status with which it is refused. */
  readonly refuses = new Map<string, number>();
  /** Runs a command inside a container. */
  run: (command: string[], container: FakeContainer) => {
    exitCode: number;
    output?: string;
  } = () => ({ exitCode: 0 });
  /** The socket that connect-socket leads to; there is none by default. */
  socketInParent: (path: string) => string | undefined = () => undefined;
  /** What a container whose output is attached prints once it is started. */
  print: (command: string[], container: FakeContainer) => string = () => "";
  /** What a container prints after it has read a line, if its stdin is attached. */
  reply: (
    line: string,
    container: FakeContainer,
    caller: Caller,
  ) => Promise<string> = () => Promise.resolve("");
  /** Called for each container that is started. */
  started: (container: FakeContainer) => void = () => {};
  /** The engine's info and version. */
  readonly about = {
    NCPU: 64,
    Architecture: "x86_64",
    SecurityOptions: [] as string[],
    MemTotal: 16 * 1024 ** 3,
    SystemTime: "",
  };
  readonly version = {
    Version: "28.0.0",
    ApiVersion: "1.48",
    KernelVersion: "6.8",
    Components: [{ Name: "runc", Version: "1.2" }],
  };
  /** Whether the list has the network mode; Podman's does not. */
  listsHostConfig = true;
  /** The status of an answer for a name that is taken; Podman's is 500. */
  takenStatus = 409;
  /** Whether the owner of a network can be removed before its users; not with Podman. */
  removesNetworks = true;
  /** Whether a container's CPUs can be changed; Podman accepts that without an effect. */
  updatesCpus = true;
  /** What it recommends to clients: 1 is the classic builder, 2 BuildKit. */
  builder = "2";
  /** What each container has written, for a request that asks for sizes. */
  sizeRw = 0;
  /** A sample of the resource usage of each container. */
  sample: object = {};
  readonly #attached = new Map<string, PassThrough>();
  readonly #streams = new Set<PassThrough>();

  /** Adds an existing container. */
  add(name: string, change: Partial<FakeContainer> = {}): FakeContainer {
    const id = randomBytes(32).toString("hex");
    const createdAt = new Date().toISOString();
    const container: FakeContainer = {
      id,
      name,
      spec: {},
      state: "running",
      createdAt,
      startedAt: createdAt,
      exitCode: 0,
      oomKilled: false,
      log: "",
      programs: [],
      ...change,
    };
    this.containers.push(container);
    return container;
  }

  find(name: string): FakeContainer | undefined {
    return this.containers.find((container) =>
      container.name === name || container.id === name
    );
  }

  names(): string[] {
    return this.containers.map(({ name }) => name).sort();
  }

  /** Sends an event of the engine about a container. */
  emit(action: string, { id, name, spec }: FakeContainer): void {
    const time = Math.floor(Date.now() / 1000);
    const Actor = { ID: id, Attributes: { name, ...spec.Labels } };
    const line = JSON.stringify({ Action: action, time, Actor }) + "\n";
    for (const stream of this.#streams) stream.write(line);
  }

  get followers(): number {
    return this.#streams.size;
  }

  get docker(): Docker {
    return {
      listContainers: (options: { filters?: { label?: string[] } } = {}) =>
        answer(() =>
          this.containers.filter(({ spec }) =>
            (options.filters?.label ?? []).every((text) => {
              const [key = "", value] = text.split("=");
              return spec.Labels?.[key] === value;
            })
          ).map((container) => ({
            ...listed(container),
            ...(this.listsHostConfig ? hostConfig(container) : {}),
          }))
        ),
      createContainer: (request: object) =>
        answer(() => this.#create(request as CreateRequest)),
      getContainer: (name: string) => this.#handle(name),
      getImage: (name: string) => ({
        inspect: () => answer(() => this.#image(name)),
        remove: () =>
          answer(() => {
            this.#ask(`rmi ${name}`);
            this.images.delete(name);
          }),
        tag: ({ repo, tag }: { repo: string; tag: string }) =>
          answer(() => {
            this.images.set(`${repo}:${tag}`, this.#image(name));
          }),
      }),
      getVolume: (name: string) => ({
        inspect: () =>
          answer(() => this.volumes.get(name) ?? refuse(404, "no such volume")),
        remove: () =>
          answer(() => {
            this.#ask(`rm volume ${name}`);
            this.volumes.delete(name);
          }),
      }),
      // Filters for images without a name, and for those of an instance.
      listImages: ({ filters }: { filters: { reference?: string[] } }) =>
        answer(() =>
          [...this.images].filter(([name]) =>
            filters.reference
              ? filters.reference.some((one) => name.startsWith(`${one}:`))
              : true
          ).map(([, image]) => ({ Created: 0, ...image }))
        ),
      listVolumes: () =>
        answer(() => ({ Volumes: [...this.volumes.values()] })),
      df: () => answer(() => ({ Volumes: null })),
      createVolume: (spec: { Name: string }) =>
        answer(() => this.volumes.set(spec.Name, spec)),
      getEvents: () =>
        answer(() => {
          const stream = new PassThrough();
          this.#streams.add(stream);
          stream.on("close", () => this.#streams.delete(stream));
          return stream;
        }),
      info: () => answer(() => this.about),
      // Only for the headers of /_ping.
      modem: {
        dial: (_: unknown, done: (error: null, answer: object) => void) =>
          done(
            null,
            Object.assign(Readable.from([]), {
              headers: { "builder-version": this.builder },
            }),
          ),
      },
      version: () => answer(() => this.version),
    } as unknown as Docker;
  }

  /** By name or id. */
  #image(name: string): object {
    const byId = [...this.images.values()].find((image) =>
      (image as { Id?: string }).Id === name
    );
    return this.images.get(name) ?? byId ?? refuse(404, "no such image");
  }

  #create({ _query: { name }, _body: spec }: CreateRequest): object {
    this.#ask(`create ${name}`);
    if (!this.images.has(spec.Image ?? "")) refuse(404, "no such image");
    if (this.find(name)) refuse(this.takenStatus, "the name is in use");
    const image = (this.#image(spec.Image ?? "") as { Id?: string }).Id;
    const { id } = this.add(name, { spec, image, state: "created" });
    return this.#handle(id);
  }

  #handle(name: string) {
    const here = () => this.find(name) ?? refuse(404, "no such container");
    const change = (action: string, act: (found: FakeContainer) => void) =>
      answer(() => {
        const found = here();
        this.#ask(`${action} ${found.name}`);
        act(found);
      });
    return {
      id: this.find(name)?.id ?? name,
      inspect: (options?: { size?: boolean }) =>
        answer(() => {
          const found = here();
          const image = this.images.get(found.spec.Image ?? "");
          const id = (image as { Id?: string } | undefined)?.Id;
          return {
            ...inspected(found, found.image ?? id),
            HostConfig: this.#withIds(found.spec.HostConfig),
            ...(options?.size ? { SizeRw: this.sizeRw } : {}),
          };
        }),
      start: () =>
        change("start", (found) => {
          if (found.state === "running") refuse(304, "already started");
          found.state = "running";
          found.startedAt = new Date().toISOString();
          found.log ||= `${gatePassed}\n`;
          this.started(found);
          if (found.spec.OpenStdin) return;
          const text = this.print(found.spec.Cmd ?? [], found);
          this.#attached.get(found.id)?.end(frame(text));
        }),
      attach: ({ stdin }: { stdin?: boolean } = {}) =>
        answer(() => {
          if (stdin) {
            return replying((line, caller) => this.reply(line, here(), caller));
          }
          const stream = new PassThrough();
          this.#attached.set(here().id, stream);
          return stream;
        }),
      stats: () => answer(() => here() && this.sample),
      restart: () => change("restart", (found) => this.started(found)),
      getArchive: ({ path }: { path: string }) =>
        answer(() => Readable.from([archive(`${here().name} ${path}\n`)])),
      stop: () =>
        change("stop", (found) => {
          if (found.state !== "running") refuse(304, "already stopped");
          found.state = "exited";
        }),
      remove: () =>
        change("remove", (found) => {
          const mode = `container:${found.id}`;
          const isUsed = this.containers.some(({ spec }) =>
            this.#withIds(spec.HostConfig).NetworkMode === mode
          );
          if (isUsed && !this.removesNetworks) {
            refuse(500, "it has dependent containers");
          }
          this.containers.splice(this.containers.indexOf(found), 1);
        }),
      pause: () =>
        change("pause", (found) => {
          if (found.state !== "running") refuse(409, "it is not running");
          found.state = "paused";
        }),
      unpause: () =>
        change("unpause", (found) => {
          if (found.state !== "paused") refuse(500, "it is not paused");
          found.state = "running";
        }),
      rename: ({ name: next }: { name: string }) =>
        change("rename", (found) => {
          if (this.find(next)) refuse(this.takenStatus, "the name is in use");
          found.name = next;
        }),
      update: (limits: object) =>
        change("update", ({ spec }) => {
          const { NanoCpus } = spec.HostConfig ?? {};
          const kept = this.updatesCpus ? {} : { NanoCpus };
          spec.HostConfig = { ...spec.HostConfig, ...limits, ...kept };
        }),
      putArchive: () => change("put", () => {}),
      logs: ({ follow = false }) =>
        answer(() => {
          const framed = frame(here().log);
          return follow ? Readable.from([framed]) : framed;
        }),
      top: () =>
        answer(() => ({
          Processes: ["tini", "sleep", ...here().programs].map((name) => [
            "1",
            name,
          ]),
        })),
      exec: ({ Cmd }: { Cmd: string[] }) =>
        answer(() => {
          const [program, path = ""] = Cmd;
          if (program === "/scripts/connect-socket") {
            const socket = this.socketInParent(path);
            return here() && { start: () => answer(() => framed(socket)) };
          }
          const { exitCode, output = "" } = this.run(Cmd, here());
          return {
            start: () => answer(() => Readable.from([frame(output)])),
            inspect: () => answer(() => ({ ExitCode: exitCode })),
          };
        }),
    };
  }

  /** As engines show it: with the id of the container that owns the network. */
  #withIds(config: Docker.HostConfig = {}): Docker.HostConfig {
    const holder = this.find(holderOf(config.NetworkMode ?? "") ?? "");
    if (!holder) return config;
    return { ...config, NetworkMode: `container:${holder.id}` };
  }

  #ask(what: string): void {
    this.asked.push(what);
    const status = this.refuses.get(what);
    if (status !== undefined) refuse(status, "refused");
  }
}

interface CreateRequest {
  _query: { name: string };
  _body: Docker.ContainerCreateOptions;
}

function refuse(statusCode: number, message: string): never {
  throw Object.assign(new Error(message), { statusCode, json: { message } });
}

// deno-lint-ignore require-await
async function answer<T>(act: () => T): Promise<T> {
  return act();
}

/** A tar archive with one file. */
function archive(text: string): Buffer {
  const header = Buffer.alloc(512);
  header.write(`${text.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write("0", 156);
  const body = Buffer.alloc(512);
  body.write(text);
  return Buffer.concat([header, body, Buffer.alloc(1024)]);
}

/** Frames output as Docker does for a container without a terminal. */
function frame(text: string, stream = 1): Buffer {
  const body = Buffer.from(text);
  const header = Buffer.alloc(8);
  header[0] = stream;
  header.writeUInt32BE(body.length, 4);
  return body.length === 0 ? body : Buffer.concat([header, body]);
}

/** A stream that answers the first line, in frames, and ends. */
function replying(
  reply: (line: string, caller: Caller) => Promise<string>,
): Duplex {
  const output = new PassThrough();
  const input = new PassThrough();
  const nextLine = async () => String((await once(input, "data"))[0]).trim();
  const tell = (line: string) => void output.write(frame(`${line}\n`, 2));
  void nextLine().then((line) => reply(line, { tell, nextLine }))
    .then((text) => output.end(frame(text)));
  return Duplex.from({ writable: input, readable: output });
}

/** A connection to a socket, with its output in frames. */
function framed(path: string | undefined): Duplex {
  const socket = createConnection({
    path: path ?? "/none",
    allowHalfOpen: true,
  });
  const output = new PassThrough();
  socket.on("data", (bytes) => output.write(frame(String(bytes))));
  socket.on("end", () => output.end());
  socket.on("error", ({ code }: NodeJS.ErrnoException) => {
    output.end(frame(code ?? "", 2));
  });
  const input = new PassThrough();
  input.pipe(socket);
  const both = Duplex.from({ writable: input, readable: output });
  return both.on("close", () => socket.destroy());
}

function listed({ id, name, spec, state, createdAt }: FakeContainer) {
  return {
    Id: id,
    Names: [`/${name}`],
    State: state,
    Status: state === "running" ? "Up 5 minutes" : state,
    Image: spec.Image ?? "",
    Labels: spec.Labels ?? {},
    Created: Date.parse(createdAt) / 1000,
    Mounts: mountsOf(spec),
  };
}

function hostConfig({ spec }: FakeContainer) {
  const NetworkMode = spec.HostConfig?.NetworkMode ?? "bridge";
  return { HostConfig: { NetworkMode } };
}

function inspected(container: FakeContainer, image: string | undefined) {
  const { id, name, spec, state } = container;
  return {
    Id: id,
    Name: `/${name}`,
    Created: container.createdAt,
    Image: image ?? spec.Image,
    State: {
      Status: state,
      Running: state === "running" || state === "paused",
      Paused: state === "paused",
      StartedAt: container.startedAt,
      FinishedAt: container.createdAt,
      ExitCode: container.exitCode,
      OOMKilled: container.oomKilled,
      Pid: 4242,
    },
    Config: { Env: [], User: "", ...spec },
    Mounts: mountsOf(spec),
    ExecIDs: null,
  };
}

function mountsOf({ HostConfig }: Docker.ContainerCreateOptions) {
  return (HostConfig?.Mounts ?? []).map(({ Type, Source, Target }) => ({
    Type,
    ...(Type === "volume" ? { Name: Source } : { Source }),
    Destination: Target,
  }));
}

export interface FakeInstance {
  instance: Instance;
  engine: FakeEngine;
  /** A directory for projects and other files of a test. */
  root: string;
  /** Logged lines. */
  told: string[];
  log: (line: string) => void;
  /** Creates a directory that can be a project. */
  project: (name: string) => string;
  /** Labels of a worker of this instance. */
  labels: (more?: Record<string, string>) => Record<string, string>;
  end: () => void;
}

/** An instance with a home, an image, a net container and a parent. */
export function fakeInstance(
  root = mkdtempSync(join(tmpdir(), "hal9000-fake-")),
): FakeInstance {
  const engine = new FakeEngine();
  const prefix = "fake";
  const home = homePaths(join(root, "home"));
  const names = instanceNames(prefix);
  const settings = readSettings({
    HAL9000_HOME: home.home,
    HAL9000_PREFIX: prefix,
    HAL9000_IMAGE_REPO: "repo",
    WORKER_SECCOMP: "engine",
    WORKER_CPUS: "1",
  });
  const instance: Instance = {
    docker: engine.docker,
    settings,
    socket: "/var/run/docker.sock",
    prefix,
    names,
    home,
    hostHome: home,
    owner: ownerOf(root),
    places: { userHomes: [], checkouts: [] },
    host: { mount: "", roots: undefined },
    self: undefined,
  };
  ensureHome(instance);
  for (const name of ["hosts", "hosts.relay", "resolv.conf", "hostname"]) {
    writeFileSync(join(home.netFiles, name), "");
  }
  // Of a parent that has run. Not a certificate: making one takes time.
  const authority = { cert: "planted certificate", key: "", until: 4e12 };
  writeFileSync(
    home.relayAuthorities,
    JSON.stringify({ version: 1, authorities: [authority] }),
  );
  const labels = (role: string, more = {}) => ({
    [label.instance]: prefix,
    [label.role]: role,
    [label.home]: home.home,
    ...more,
  });
  for (const name of ["base", "worker", "parent"]) {
    engine.images.set(`repo:${name}`, { Id: `sha256:${name}`, Config: {} });
  }
  // Older than any worker.
  const createdAt = "2026-01-01T00:00:00.000Z";
  for (const role of ["net", "parent"] as const) {
    engine.add(names[role], {
      spec: { Labels: labels(role) },
      createdAt,
      startedAt: createdAt,
    });
  }
  const told: string[] = [];
  return {
    instance,
    engine,
    root,
    told,
    log: (line) => void told.push(line),
    project: (name) => {
      const path = join(root, name);
      mkdirSync(path, { recursive: true });
      return path;
    },
    labels: (more) => labels("worker", more),
    end: () => rmSync(root, { recursive: true, force: true }),
  };
}
