// Each message in docs/dind/TROUBLESHOOTING.md is one that the program prints.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { cliFailure } from "../../lib/docker/docker-cli.ts";
import { engineFailure } from "../../lib/docker/docker-errors.ts";
import { sshFailure } from "../../lib/docker/ssh.ts";
import { Failure, fileFailure } from "../../lib/std/errors.ts";
import { checkout } from "../../lib/std/checkout.ts";
import { tellOfPids } from "../../lib/worker/limit-events.ts";
import { main as claudy } from "../../scripts/claudy.ts";
import { main as migrate } from "../../scripts/migrate.ts";
import { main as spawnWorker } from "../../scripts/spawn-worker.ts";
import { tokensOf } from "../helper/documents.ts";
import { runMain } from "../helper/run-main.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";
import { sourceTexts, type Text } from "../helper/texts.ts";

const test = suite<Served>("troubleshooting");

test.before.each(async (context) =>
  void Object.assign(context, await serveEngine())
);
test.after.each(({ close }) => close());

/** The messages of the document, by their headings. */
function symptoms(): Map<string, string> {
  const path = join(checkout, "docs/dind/TROUBLESHOOTING.md");
  const tokens = tokensOf(readFileSync(path, "utf8"));
  const found = new Map<string, string>();
  let heading = "";
  for (const [index, { type, info, content }] of tokens.entries()) {
    if (tokens[index - 1]?.type === "heading_open") heading = content;
    if (type === "fence" && info === "text") found.set(heading, content.trim());
  }
  return found;
}

/** As commands print it. */
function printed({ message, hint }: Failure): string {
  return [`error: ${message}`, hint].filter(Boolean).join("\n");
}

/** How to get a message; the others are compared with the texts of the sources. */
const triggers: Record<string, (served: Served) => Promise<string> | string> = {
  "The engine cannot be reached": async () =>
    (await runMain(claudy, ["daemon", "start"])).stderr,
  "No permission for the engine": () => {
    const error = {
      syscall: "connect",
      code: "EACCES",
      address: "/var/run/docker.sock",
    };
    return printed(engineFailure(error, "Cannot run claudy"));
  },
  "The engine cannot be reached by ssh": () => {
    const target = {
      host: "ssh://h",
      options: [],
      destination: "h",
      socket: "",
    };
    const words =
      "Offending key in known_hosts:1\nHost key verification failed.";
    return printed(engineFailure(sshFailure(target, words), "Cannot x"));
  },
  "The docker command does not fit the engine": () => {
    const engine = { Version: "29", ApiVersion: "1.52", MinAPIVersion: "1.44" };
    const cli = { version: "20.10", api: "1.41", works: false };
    const failure = cliFailure(cli, engine, {});
    return failure ? printed(failure) : "";
  },
  "The docker context is missing": async ({ run }) => {
    const env = { DOCKER_HOST: "", DOCKER_CONTEXT: "nowhere" };
    return (await run(claudy, ["daemon", "start"], { env })).stderr;
  },
  "The engine cannot limit containers": async ({ run, engine, project }) => {
    engine.images.set("repo:worker", { Config: {} });
    Object.assign(engine.about, { MemoryLimit: false, PidsLimit: false });
    const options = ["-d", "--require-limits", project("app")];
    return (await run(spawnWorker, options)).stderr;
  },
  "There are no images": async ({ run, engine }) => {
    engine.images.clear();
    return (await run(claudy, ["daemon", "start"])).stderr;
  },
  "The disk is full": () => {
    const error = { code: "ENOSPC", syscall: "write", path: "/home/me/x" };
    const failure = fileFailure(Object.assign(new Error("full"), error));
    return failure ? printed(failure) : "";
  },
  "A setting is not valid": async ({ run }) => {
    const env = { MIN_WARM_WORKERS: "few" };
    return (await run(claudy, ["daemon", "status"], { env })).stderr;
  },
  "Not logged in": async ({ run, engine, project }) => {
    engine.images.set("repo:worker", { Config: {} });
    return (await run(claudy, ["--detach", project("app")])).stderr;
  },
  "A token in place of a key": async ({ run }) => {
    const stdin = "sk-ant-oat01-planted";
    return (await run(claudy, ["login", "--key"], { stdin })).stderr;
  },
  "A gateway on localhost": async ({ run, project }) => {
    const server = createServer().listen(0, "localhost");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const env = { ANTHROPIC_BASE_URL: `http://localhost:${port}` };
    try {
      return (await run(claudy, ["-d", project("app")], { env })).stderr;
    } finally {
      server.close();
    }
  },
  "The directory is refused": async ({ run }) =>
    (await run(claudy, ["--detach", homedir()])).stderr,
  "A word is not a command": async ({ run }) =>
    (await run(claudy, ["nonsense"])).stderr,
  "The name is taken": async ({ run, engine, project }) => {
    engine.images.set("repo:worker", { Config: {} });
    engine.add("mine");
    return (await run(spawnWorker, ["-d", "-n", "mine", project("app")]))
      .stderr;
  },
  "The parent is not running": async ({ run, engine, instance, project }) => {
    await engine.docker.getContainer(instance.names.parent).remove();
    return (await run(spawnWorker, ["-d", project("app")])).stderr;
  },
  "The limit of processes": () => {
    const lines: string[] = [];
    const events = {
      pidsRefused: 1,
      pidsLimit: 100,
      oomKills: 0,
      memoryReached: 0,
    };
    tellOfPids({ name: "mine", events }, (line) => void lines.push(line));
    return lines.join("\n");
  },
  "The network is in use": async ({ run, engine, instance }) => {
    engine.removesNetworks = false;
    const HostConfig = { NetworkMode: `container:${instance.names.net}` };
    engine.add("mine", { spec: { HostConfig } });
    return (await run(claudy, ["daemon", "stop"])).stderr;
  },
  "There is no terminal": async ({ run }) =>
    (await run(claudy, ["logout"])).stderr,
  "There is no warm worker": async ({ run }) =>
    (await run(claudy, ["pool", "scale", "3"])).stderr,
  "There is nothing to migrate": async ({ run }) =>
    (await run(migrate, ["--dry-run"])).stderr,
};

let texts: Text[] = [];
test.before(async () => {
  // Hints for an engine that does not answer depend on it.
  delete process.env["DOCKER_HOST"];
  texts = await sourceTexts(checkout, ["lib", "scripts"]);
});

const messages = symptoms();

for (const [heading, message] of messages) {
  test(`${heading}: the program prints this message`, async (served) => {
    const trigger = triggers[heading];
    if (trigger) return assert.match(await trigger(served), pattern(message));
    const unknown = message.split("\n").filter((line) => !isText(line));
    assert.equal(unknown, []);
  });
}

test("every message that is known to be printed is in the document", () => {
  const missing = Object.keys(triggers).filter((name) => !messages.has(name));
  assert.equal(missing, []);
  assert.ok(messages.size > 20);
});

/** The whole message; … stands for anything. */
function pattern(message: string): RegExp {
  const parts = message.split("…")
    .map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
  return new RegExp(`^${parts.join("[^]+")}\n?$`);
}

/** Whether a line of a message is a whole text of the sources. */
function isText(line: string): boolean {
  const wanted = line.replaceAll("…", "X");
  return texts.some(({ text }) => text === wanted);
}

test.run();
