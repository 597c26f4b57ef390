// Reaches an engine over the system's ssh, as the Docker CLI does: each connection is a
// `docker system dial-stdio` on the engine's machine. They share one ssh connection.

import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { lstatSync, mkdirSync, rmSync } from "node:fs";
import { Agent } from "node:http";
import { createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { Duplex } from "node:stream";
import { shellQuoted } from "../std/text.ts";
import { Unreachable } from "./docker-errors.ts";
import type { SshTarget } from "./endpoint.ts";

/** How long the shared connection stays after its last use. */
const persistSeconds = 60;

/** Below sshd's default MaxSessions of 10, which the processes of a user share. */
const maxConnections = 6;

/** An agent for node:http whose connections end at the engine. */
export class SshAgent extends Agent {
  readonly #target: SshTarget;
  readonly #env: NodeJS.ProcessEnv;
  #sharing: Promise<string[]> | undefined;
  readonly #running = new Set<ChildProcess>();
  readonly #batch: boolean;
  #isAbandoned = false;

  /** With `batch`, ssh asks for nothing at the terminal. */
  constructor(
    target: SshTarget,
    env: NodeJS.ProcessEnv,
    { batch = false } = {},
  ) {
    super({ keepAlive: true, maxSockets: maxConnections });
    this.#target = target;
    this.#env = env;
    this.#batch = batch;
  }

  // node:http calls it with a callback; a returned connection would have to exist already.
  override createConnection(
    _options: unknown,
    connected?: (error: Error | null, stream: Duplex) => void,
  ): undefined {
    this.connect().then(
      (stream) => connected?.(null, stream),
      (error) => connected?.(error, undefined as unknown as Duplex),
    );
    return undefined;
  }

  /** Logs in if there is no shared connection; returns ssh's options to use it. */
  async share(): Promise<string[]> {
    // Connections that are opened at the same time wait for one login.
    this.#sharing ??= this.#share().finally(() => this.#sharing = undefined);
    return await this.#sharing;
  }

  /** Ends a login that is under way, which then fails. ssh restores the terminal first. */
  abandon(): void {
    this.#isAbandoned = true;
    for (const child of this.#running) {
      child.kill("SIGTERM");
      child.stdout?.destroy();
      child.stderr?.destroy();
    }
  }

  /** A connection to the engine. */
  async connect(): Promise<Duplex> {
    const options = await this.share();
    const { destination } = this.#target;
    // A session of its own: Ctrl-C must not end it before this process has cleaned up.
    const child = this.#ssh(
      [...options, "--", destination, dialCommand(this.#target)],
      true,
    );
    return new SshConnection(
      child,
      (reason) => sshFailure(this.#target, reason),
    );
  }

  async #share(): Promise<string[]> {
    const { destination, options: own } = this.#target;
    const path = join(privateDirectory(), this.#digest());
    const options = [
      ...["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=5"],
      // Of the user's configuration, what is for sessions at a terminal.
      ...["ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes"]
        .flatMap((option) => ["-o", option]),
      ...["-o", "RemoteCommand=none", "-o", "PermitLocalCommand=no"],
      ...["-o", `ControlPath=${path}`, "-T", ...own],
    ];
    const use = ["-o", "ControlMaster=no", ...options];
    const check = ["-O", "check", ...use, "--", destination];
    if ((await this.#run(check)).code === 0) return use;
    const { stdout } = await this.#run(["-G", ...own, "--", destination]);
    // ssh itself asks for passwords at the terminal, but an unknown host is refused.
    const strict = /^stricthostkeychecking ask$/m.test(stdout)
      ? ["-o", "StrictHostKeyChecking=yes"]
      : [];
    const persist = `ControlPersist=${persistSeconds}`;
    const batch = this.#batch ? ["-o", "BatchMode=yes"] : [];
    const login = [
      ...["-o", "ControlMaster=auto", "-o", persist, ...strict, ...batch],
    ];
    const words = [...login, ...options, "--", destination, "true"];
    const { code, stderr } = await this.#run(words);
    if (code !== 0) throw sshFailure(this.#target, stderr);
    return [...strict, ...use];
  }

  /** Other configurations of ssh may reach another machine by the same name. */
  #digest(): string {
    const { destination, options } = this.#target;
    const about = [destination, ...options, this.#env["PATH"]].join("\n");
    return createHash("sha256").update(about).digest("hex").slice(0, 12);
  }

  #ssh(args: readonly string[], detached = false): ChildProcess {
    return spawn("ssh", args, {
      // Not the working directory, which the shared connection would keep in use.
      cwd: "/",
      detached,
      env: this.#env,
      stdio: [detached ? "pipe" : "ignore", "pipe", "pipe"],
    });
  }

  async #run(
    args: readonly string[],
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    if (this.#isAbandoned) throw sshFailure(this.#target, "given up");
    const child = this.#ssh(args);
    this.#running.add(child);
    child.on("close", () => this.#running.delete(child));
    const [stdout, stderr] = [textOf(child.stdout), textOf(child.stderr)];
    return await new Promise((resolve, reject) => {
      child.on("error", (error) => reject(sshFailure(this.#target, error)));
      child.on("close", (code) => {
        resolve({ code: code ?? 1, stdout: stdout(), stderr: stderr() });
      });
    });
  }
}

/** What the shell of the engine's machine runs. */
function dialCommand({ socket }: SshTarget): string {
  return socket
    ? `docker --host ${shellQuoted(`unix://${socket}`)} system dial-stdio`
    : "docker system dial-stdio";
}

/** `reason` is what ssh has printed, or why it could not be started. */
export function sshFailure(
  { destination, options, host }: SshTarget,
  reason: string | NodeJS.ErrnoException,
): Unreachable {
  if (typeof reason !== "string") {
    const isMissing = reason.code === "ENOENT";
    return new Unreachable(host, isMissing ? "no ssh" : reason.message, {
      cause: reason,
      hint: "Install it: apt-get install openssh-client",
    });
  }
  // Without the frame of a warning, which is drawn with @.
  const lines = reason.split("\n").map((line) => line.trim())
    .filter((line) => line !== "" && !/^@.*@$/.test(line));
  const fault = lines.pop() ?? "ssh has ended";
  const see = ["ssh", ...options, destination, "docker", "version"].join(" ");
  return new Unreachable(host, fault.replace(/\.$/, ""), {
    hint: [...lines, `See what is wrong, and log in: ${see}`].join("\n"),
  });
}

/**
 * Serves the engine on a socket, for a docker command: its own ssh would log in for each
 * connection, and could not ask for a password. Throws if the engine's host is out of reach.
 */
export async function bridgeEngine(
  target: SshTarget,
  env: NodeJS.ProcessEnv,
): Promise<{ host: string; close: () => void }> {
  const agent = new SshAgent(target, env);
  await agent.share();
  const path = join(privateDirectory(), `${process.pid}.sock`);
  const remove = () => rmSync(path, { force: true });
  remove(); // of a killed process with this pid
  const server = createServer({ allowHalfOpen: true }, (client) => {
    client.on("error", () => {}); // it is closed, too
    agent.connect().then((engine) => {
      engine.on("error", () => client.destroy());
      client.on("close", () => engine.destroy());
      client.pipe(engine).pipe(client);
    }, () => client.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.on("error", reject).listen(path, resolve);
  });
  process.once("exit", remove);
  const close = () => {
    process.off("exit", remove);
    server.close();
    remove();
  };
  return { host: `unix://${path}`, close };
}

/** The output so far, which is short. */
function textOf(stream: ChildProcess["stdout"]): () => string {
  let text = "";
  stream?.setEncoding("utf8").on("data", (part: string) => {
    text = (text + part).slice(-maxWords);
  });
  return () => text;
}

/** Of what ssh prints. */
const maxWords = 16 * 1024;

/** The stdin and stdout of an ssh, with the methods of a socket that node:http calls. */
class SshConnection extends Duplex {
  readonly #child: ChildProcess;

  constructor(
    child: ChildProcess,
    unreachable: (reason: string | Error) => Error,
  ) {
    super({ allowHalfOpen: false });
    this.#child = child;
    const words = textOf(child.stderr);
    child.stdin?.on("error", () => {}); // the end of ssh says why
    child.stdout?.on("data", (bytes) => {
      if (!this.push(bytes)) child.stdout?.pause();
    });
    child.on("error", (error) => this.destroy(unreachable(error)));
    child.on("close", (code) => {
      if (code === 0) this.push(null);
      else this.destroy(unreachable(words()));
    });
  }

  override _read(): void {
    this.#child.stdout?.resume();
  }

  override _write(
    bytes: Uint8Array,
    _encoding: string,
    done: (error?: Error | null) => void,
  ): void {
    // A failed write is followed by the end of ssh, which says why.
    this.#child.stdin?.write(bytes, () => done());
  }

  override _final(done: () => void): void {
    this.#child.stdin?.end();
    done();
  }

  override _destroy(
    error: Error | null,
    done: (error: Error | null) => void,
  ): void {
    this.#child.kill();
    done(error);
  }

  destroySoon(): void {
    this.end(() => this.destroy());
  }

  setKeepAlive(): this {
    return this;
  }

  setNoDelay(): this {
    return this;
  }

  setTimeout(): this {
    return this;
  }

  ref(): this {
    return this.#hold("ref");
  }

  /** Lets this process end while the connection is kept for a next call. */
  unref(): this {
    return this.#hold("unref");
  }

  #hold(how: "ref" | "unref"): this {
    const { stdin, stdout, stderr } = this.#child;
    this.#child[how]();
    for (const stream of [stdin, stdout, stderr]) {
      (stream as { ref?(): void; unref?(): void } | null)?.[how]?.();
    }
    return this;
  }
}

/**
 * Holds the sockets of shared connections and of engines. Their paths must be short
 * (unix(7)), and a user who can replace one gets the connection.
 */
export function privateDirectory(
  uid = process.getuid?.() ?? 0,
  path = `/tmp/hal9000-ssh-${uid}`,
): string {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const found = lstatSync(path);
  if (found.isDirectory() && found.uid === uid && (found.mode & 0o77) === 0) {
    return path;
  }
  throw new Unreachable(path, "the directory is not yours alone", {
    hint: `Remove it: rm -r ${path}`,
  });
}
