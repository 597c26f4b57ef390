// Opening, stopping, listing and removing sessions, on a fake engine.

import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { label } from "../../lib/instance/labels.ts";
import { writeParentState } from "../../lib/instance/parent-state.ts";
import { readRecord } from "../../lib/instance/record.ts";
import { readGrant, readGrants } from "../../lib/relay/grant.ts";
import {
  readSession,
  removeSessionRecord,
  writeSession,
} from "../../lib/instance/session-record.ts";
import { formerSessionName, sessionName } from "../../lib/project/project.ts";
import {
  hasConversation,
  lastSaidAt,
} from "../../lib/session/conversations.ts";
import { followSessions } from "../../lib/session/watch.ts";
import {
  forgetCredentials,
  keepCredential,
} from "../../lib/home/credentials.ts";
import { spawnWorker } from "../../lib/worker/spawn.ts";
import { waitFor } from "../../lib/std/wait.ts";
import { listSessions } from "../../lib/session/list.ts";
import { readySession } from "../../lib/session/open.ts";
import { checkOpening, type OpenRequest } from "../../lib/session/opening.ts";
import { listWorkers } from "../../lib/worker/workers.ts";
import { renameSession } from "../../lib/session/move.ts";
import { relayUseFor, startSession } from "../../lib/session/start.ts";
import {
  removeSession,
  stopSession,
  syncSession,
} from "../../lib/session/session.ts";
import { findSession } from "../../lib/session/find.ts";
import {
  type FakeContainer,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite<FakeInstance>("opening");

test.before.each((context) => void Object.assign(context, fakeInstance()));
test.after.each(({ end }) => end());

/** Simulates the CLI in its tmux, for engine.run. */
const claudeRuns = (runs: boolean) => (command: string[]) => ({
  exitCode: command.includes("has-session") && !runs ? 1 : 0,
});

async function open(
  { instance, project, log }: FakeInstance,
  change: Partial<OpenRequest> = {},
) {
  const request: OpenRequest = {
    directory: project("app"),
    cwd: "/",
    profile: { name: undefined, build: false },
    mcp: undefined,
    claudeArguments: [],
    approveConfig: () => Promise.resolve(false),
    env: {},
    ...change,
  };
  const opening = await checkOpening(instance, request, log);
  return await readySession(instance, opening, request, log);
}

const failureOf = (
  promise: Promise<unknown>,
): Promise<Error & { kind: string; hint?: string }> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

function converse({ instance }: FakeInstance, session: string, at?: Date) {
  const directory = join(
    instance.home.claude,
    session,
    "projects",
    "-workspace",
  );
  mkdirSync(directory, { recursive: true });
  const path = join(directory, "one.jsonl");
  writeFileSync(path, "{}\n");
  if (at) utimesSync(path, at, at);
}

test("opens a project in a new worker, and records it", async (fake) => {
  const { instance, engine, project } = fake;
  const path = project("app");
  const ready = await open(fake);
  const name = sessionName(path);
  assert.is(ready.session, name);
  assert.is(ready.start, "cold");
  assert.is(ready.resumes, false);
  const labels = engine.find(ready.id)?.spec.Labels ?? {};
  assert.is(labels[label.session], name);
  assert.is(labels[label.project], path);
  assert.is(engine.find(ready.id)?.state, "running");
  const record = readSession(instance, name);
  assert.is(record?.project, path);
  assert.is(
    ready.env["HAL9000_PORT_BASE"],
    `${record?.portBase}`,
  );
  assert.is(readRecord(instance, ready.worker)?.home, `claude/${name}`);
});

test("a session that is renamed while its worker starts is not run under its former name", async (fake) => {
  const { engine, instance, project } = fake;
  const name = sessionName(project("app"));
  engine.started = () => removeSessionRecord(instance, name);
  const { kind, message } = await failureOf(open(fake));
  assert.is(kind, "busy");
  assert.match(message, "was renamed or removed");
  assert.equal(await listWorkers(instance), []);
  assert.not(existsSync(join(instance.home.claude, name)));
  assert.is(readSession(instance, name), undefined);
});

test("unapproved project configuration has no effect on Claude", async (fake) => {
  const { project, told } = fake;
  const withSettings = (name: string) => {
    const directory = project(name);
    mkdirSync(join(directory, ".claude"));
    const settings = { permissions: { allow: ["Bash(make:*)"] } };
    writeFileSync(
      join(directory, ".claude", "settings.json"),
      JSON.stringify(settings),
    );
    return directory;
  };
  const onlyUsers = /--setting-sources user/;
  const refused = await open(fake, { directory: withSettings("one") });
  assert.match(refused.command.join(" "), onlyUsers);
  assert.ok(told.some((line) => line.includes("it is not approved")));
  const approved = await open(fake, {
    directory: withSettings("two"),
    approveConfig: () => Promise.resolve(true),
  });
  assert.not.match(approved.command.join(" "), onlyUsers);
  const none = await open(fake, {
    approveConfig: () => Promise.resolve(true),
  });
  assert.match(none.command.join(" "), onlyUsers);
});

test("opening a running session starts no second worker and changes no settings", async (fake) => {
  const { engine } = fake;
  engine.run = claudeRuns(true);
  const first = await open(fake);
  const before = engine.asked.length;
  const again = await open(fake, {
    approveConfig: () => assert.unreachable() as never,
  });
  assert.is(again.id, first.id);
  assert.is(again.start, "running");
  assert.is(engine.asked.length, before);
});

test("opening a running session approves nothing of its project", async (fake) => {
  const { engine, instance, project } = fake;
  const directory = project("app");
  mkdirSync(join(directory, ".claude"));
  const settings = JSON.stringify({ permissions: { allow: ["Bash(make:*)"] } });
  writeFileSync(join(directory, ".claude", "settings.json"), settings);
  const { session } = await open(fake, { directory });
  const claudeHome = join(instance.home.home, "claude", session);
  const files = ["hal9000-settings.json", "hal9000-context.md"];
  const texts = () =>
    files.map((name) => readFileSync(join(claudeHome, name), "utf8"));
  const before = texts();
  engine.run = claudeRuns(true);
  const again = await open(fake, { directory });
  assert.is(again.start, "running");
  assert.equal(texts(), before);
  // Claude may exit before the caller attaches: it is then started again.
  assert.match(
    again.command.join(" "),
    /--setting-sources user --settings .*hal9000-settings\.json$/,
  );
});

/** Without the relay. */
function turnOff({ instance }: FakeInstance): void {
  Object.assign(instance.settings, { HAL9000_RELAY: "off" });
}

test("opening a running session leaves the key that its Claude uses", async (fake) => {
  const { engine, instance } = fake;
  turnOff(fake);
  keepCredential(instance, "token", "sk-ant-oat01-token");
  const { session } = await open(fake, {
    env: { ANTHROPIC_API_KEY: "sk-ant-api03-caller" },
  });
  const claudeHome = join(instance.home.home, "claude", session);
  const settings = readFileSync(join(claudeHome, "hal9000-settings.json"));
  assert.match(settings.toString(), /"apiKeyHelper":"cat [^"]*anthropic_key"/);
  const key = () => readFileSync(join(claudeHome, ".anthropic_key"), "utf8");
  engine.run = claudeRuns(true);
  await open(fake); // from another terminal, without the variable
  assert.is(key(), "sk-ant-api03-caller");
  keepCredential(instance, "key", "sk-ant-api03-stored");
  await open(fake);
  assert.is(key(), "sk-ant-api03-stored");
});

test("with the relay, a running session keeps its placeholder, proxy and gateway until a logout", async (fake) => {
  const { engine, instance, root } = fake;
  const ca = join(root, "ca.pem");
  writeFileSync(ca, "certificate");
  keepCredential(instance, "token", "sk-ant-oat01-token");
  const caller = {
    ANTHROPIC_API_KEY: "sk-ant-api03-caller",
    ANTHROPIC_BASE_URL: "https://gateway.example",
    HTTPS_PROXY: "http://me:planted@proxy.example:1",
    NODE_EXTRA_CA_CERTS: ca,
  };
  const { session, env } = await open(fake, { env: caller });
  const claudeHome = join(instance.home.home, "claude", session);
  const read = (name: string) => readFileSync(join(claudeHome, name), "utf8");
  const placeholder = read(".anthropic_key");
  assert.match(placeholder, /^sk-ant-hal9000-/);
  assert.match(
    read(".caller.NODE_EXTRA_CA_CERTS"),
    /^certificate\nplanted certificate/,
  );
  assert.match(read(".caller-env.NO_PROXY"), /,api\.anthropic\.com$/);
  assert.is(env["ANTHROPIC_BASE_URL"], "https://127.0.0.1");
  const grant = () => {
    const [one] = readGrants(instance);
    assert.is(one?.placeholder, placeholder);
    assert.is(read(".anthropic_key"), placeholder);
    return [one?.kind, one?.credential, one?.baseUrl, one?.upstream.https];
  };
  const [way, proxy] = [caller.ANTHROPIC_BASE_URL, `${caller.HTTPS_PROXY}/`];
  const own = ["caller", caller.ANTHROPIC_API_KEY, way, proxy];
  assert.equal(grant(), own);
  engine.run = claudeRuns(true);
  await open(fake); // from another terminal, without the variables
  assert.equal(grant(), own);
  keepCredential(instance, "key", "sk-ant-api03-stored");
  await open(fake);
  assert.equal(grant(), ["key", null, way, proxy]);
  forgetCredentials(instance);
  assert.equal(grant(), ["key", null, way, null]);
  await open(fake, { env: caller });
  assert.equal(grant(), own);
  // A key that is stored later is used at once.
  forgetCredentials(instance);
  assert.equal(grant(), ["key", null, way, null]);
});

test("without the relay, a session gets back what was replaced by its placeholder", async (fake) => {
  const { engine, instance, project } = fake;
  const caller = { ANTHROPIC_API_KEY: "sk-ant-api03-caller" };
  const { session } = await open(fake, { env: caller });
  const path = join(instance.home.home, "claude", session, ".anthropic_key");
  const restarted = async () => {
    await stopSession(instance, session, fake.log);
    engine.run = claudeRuns(false);
    await open(fake);
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  };
  // A session that is opened without a key keeps its last one.
  assert.match(await restarted() ?? "", /^sk-ant-hal9000-/);
  turnOff(fake);
  assert.is(await restarted(), "sk-ant-api03-caller");
  assert.equal(readGrants(instance), []);
  Object.assign(instance.settings, { HAL9000_RELAY: "on" });
  keepCredential(instance, "key", "sk-ant-api03-stored");
  assert.match(await restarted() ?? "", /^sk-ant-hal9000-/);
  rmSync(instance.home.anthropicKey);
  turnOff(fake);
  assert.is(await restarted(), undefined);
  assert.ok(project("app"));
});

test("a renamed session keeps what the relay sends for it, and a removed one leaves nothing", async (fake) => {
  const { instance, log } = fake;
  const caller = { ANTHROPIC_API_KEY: "sk-ant-api03-caller" };
  const { session } = await open(fake, { env: caller });
  await stopSession(instance, session, log);
  const record = readSession(instance, session);
  assert.ok(record);
  await renameSession(instance, record, "other", log);
  const { credential } = readGrant(instance, "claude/other") ?? {};
  assert.is(credential, "sk-ant-api03-caller");
  await removeSession(instance, "other", log);
  assert.is(readGrant(instance, "claude/other"), undefined);
});

test("a session uses the relay unless its caller cannot, and a program without a session never", async (fake) => {
  const { engine, instance } = fake;
  const local = { ANTHROPIC_BASE_URL: "http://127.0.0.1:1" };
  const opened = async (name: string, env: NodeJS.ProcessEnv) => {
    const { id } = await open(fake, {
      name,
      directory: fake.project(name),
      env,
    });
    return facts(engine.find(id));
  };
  const facts = (found: FakeContainer | undefined) => {
    const mounts = found?.spec.HostConfig?.Mounts ?? [];
    const source = (target: string) =>
      mounts.find(({ Target }) => Target === target)?.Source.split("/").at(-1);
    return [
      found?.spec.Labels?.[label.relay],
      source("/etc/hosts"),
      source("/run/hal9000/credentials"),
    ];
  };
  const relayed = ["true", "hosts.relay", "no-credentials"];
  assert.equal(await opened("usual", {}), relayed);
  const direct = [undefined, "hosts", "no-credentials"];
  assert.equal(await opened("local", local), direct);
  assert.equal(
    await opened("cloud", { CLAUDE_CODE_USE_BEDROCK: "1" }),
    direct,
  );
  const directory = fake.project("app");
  await spawnWorker(instance, { directory, cwd: "/", name: "mine" }, fake.log);
  assert.equal(facts(engine.find("mine")), direct);
  // A local gateway may be used with the instance's login.
  mkdirSync(instance.home.login);
  writeFileSync(
    join(instance.home.login, ".credentials.json"),
    JSON.stringify({
      claudeAiOauth: {
        accessToken: "access",
        refreshToken: "refresh",
        expiresAt: 4e12,
      },
    }),
  );
  const today = [undefined, "hosts", "credentials"];
  assert.equal(await opened("login", local), today);
  turnOff(fake);
  assert.equal(await opened("off", {}), today);
  assert.is(relayUseFor(instance, {}), "off");
});

test("a session is refused while the parent does not offer the relay", async (fake) => {
  const { instance } = fake;
  const before = fake.engine.names();
  const offered = (ports: number[]) =>
    writeParentState(instance, {
      version: 1,
      container: "",
      build: "",
      ready: true,
      readyMs: 1,
      chromadbFault: null,
      shared: { open: ports, taken: [] },
      phases: [],
      children: [],
    });
  offered([8000]);
  const { message, hint } = await failureOf(open(fake));
  assert.match(message, /^The parent was started without the relay/);
  assert.match(hint ?? "", /claudy daemon restart.*HAL9000_RELAY=off/);
  offered([8000, 443]);
  rmSync(instance.home.relayAuthorities);
  assert.match(
    (await failureOf(open(fake))).message,
    /^The relay has no certificate yet/,
  );
  assert.equal(fake.engine.names(), before);
  turnOff(fake);
  await open(fake);
});

test("a session gets the caller's proxy, certificates and gateway as files", async (fake) => {
  const { engine, instance, root, told } = fake;
  turnOff(fake);
  const ca = join(root, "ca.pem");
  writeFileSync(ca, "certificate");
  const caller = {
    HTTPS_PROXY: "http://me:planted@proxy.example:1",
    ANTHROPIC_AUTH_TOKEN: "planted-token",
    ANTHROPIC_API_KEY: "sk-ant-api03-planted",
    NODE_EXTRA_CA_CERTS: ca,
    HTTP_PROXY: "http://me:planted@localhost:1",
  };
  const ready = await open(fake, { env: caller });
  const claudeHome = join(instance.home.claude, ready.session);
  const read = (name: string) => readFileSync(join(claudeHome, name), "utf8");
  assert.is(read(".caller-env.HTTPS_PROXY"), caller.HTTPS_PROXY);
  assert.is(read(".caller-env.ANTHROPIC_AUTH_TOKEN"), "planted-token");
  assert.is(read(".caller.NODE_EXTRA_CA_CERTS"), "certificate");
  assert.not(existsSync(join(claudeHome, ".anthropic_key")));
  const mode = statSync(join(claudeHome, ".caller-env.HTTPS_PROXY")).mode;
  assert.is(mode & 0o777, 0o400);
  // The settings do not unset them.
  const { env } = JSON.parse(read("hal9000-settings.json"));
  assert.is(env.HTTPS_PROXY, caller.HTTPS_PROXY);
  assert.is(env.ANTHROPIC_AUTH_TOKEN, "planted-token");
  const shown = [ready.command, ready.env, told, engine.containers];
  assert.not.match(JSON.stringify(shown), /planted/);
  assert.ok(told.includes(
    "Not passed to Claude: HTTP_PROXY: workers have another localhost",
  ));
  // They are those of the start: another terminal does not change them.
  engine.run = claudeRuns(true);
  await open(fake, { env: {} });
  assert.is(read(".caller.NODE_EXTRA_CA_CERTS"), "certificate");
  forgetCredentials(instance);
  assert.not(readdirSync(claudeHome).some((name) => /^.caller/.test(name)));
  await open(fake, { env: caller });
  engine.run = claudeRuns(false);
  await open(fake, { env: {} });
  assert.not(readdirSync(claudeHome).some((name) => /^.caller/.test(name)));
});

test("refuses a gateway on the caller's localhost before anything is made", async (fake) => {
  const { engine, instance } = fake;
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const before = engine.names();
  try {
    const env = { ANTHROPIC_BASE_URL: `http://127.0.0.1:${port}` };
    const failure = await open(fake, { env }).then(
      () => assert.unreachable() as never,
      (error) => error,
    );
    assert.match(failure.message, /is on this machine's localhost/);
    assert.equal(engine.names(), before);
    assert.equal(readdirSync(instance.home.claude), []);
  } finally {
    server.close();
  }
});

test("a stored key is used instead of the caller's gateway token, and reported", async (fake) => {
  const { instance, told } = fake;
  keepCredential(instance, "key", "sk-ant-api03-stored");
  const { session } = await open(fake, {
    env: { ANTHROPIC_AUTH_TOKEN: "planted-token" },
  });
  const names = readdirSync(join(instance.home.claude, session));
  assert.not(names.includes(".caller-env.ANTHROPIC_AUTH_TOKEN"));
  assert.ok(told.some((line) => line.includes("the stored key is used")));
});

test("offers the MCP servers to a worker whose opening was killed", async (fake) => {
  const { engine, instance, project } = fake;
  const servers = { mcpServers: { notes: { command: "notes", port: 3050 } } };
  writeFileSync(instance.home.mcpConfig, JSON.stringify(servers));
  const directory = project("app");
  const session = sessionName(directory);
  await spawnWorker(instance, {
    directory,
    cwd: "/",
    name: session,
    session,
  }, fake.log);
  engine.run = claudeRuns(false);
  const { start } = await open(fake, { directory });
  assert.is(start, "running");
  const state = join(instance.home.home, "claude", session, ".claude.json");
  const { mcpServers } = JSON.parse(readFileSync(state, "utf8"));
  assert.equal(Object.keys(mcpServers ?? {}), ["notes"]);
});

test("continues a conversation in a new worker, unless a fresh one is requested", async (fake) => {
  const first = await open(fake);
  await stopSession(fake.instance, first.session, fake.log);
  assert.is((await open(fake)).resumes, false);
  await stopSession(fake.instance, first.session, fake.log);
  converse(fake, first.session);
  const second = await open(fake);
  assert.is.not(second.id, first.id);
  assert.is(second.resumes, true);
  assert.equal(second.command.slice(0, 2), ["claude-session", "--continue"]);
  await stopSession(fake.instance, first.session, fake.log);
  const fresh = await open(fake, { fresh: true });
  assert.is(fresh.resumes, false);
  assert.not(fresh.command.includes("--continue"));
});

test("replaces an exited worker of the session", async (fake) => {
  const { engine } = fake;
  const first = await open(fake);
  const former = engine.find(first.id);
  assert.ok(former);
  former.state = "exited";
  const second = await open(fake);
  assert.is.not(second.id, first.id);
  assert.not(engine.find(first.id));
});

test("reports a paused worker, with a hint to unpause it", async (fake) => {
  const first = await open(fake);
  Object.assign(fake.engine.find(first.id) ?? {}, { state: "paused" });
  const failure = await failureOf(open(fake));
  assert.is(failure.kind, "busy");
  assert.match(failure.message, /is paused/);
  assert.is(failure.hint, `Resume it: docker unpause ${first.worker}`);
});

test("refuses a name that another project has", async (fake) => {
  await open(fake, { name: "mine" });
  const failure = await failureOf(
    open(fake, { name: "mine", directory: fake.project("other") }),
  );
  assert.is(failure.kind, "busy");
  assert.match(
    failure.message,
    /^Cannot open session "mine" here: it belongs to .*app/,
  );
  assert.is(failure.hint, "Choose another --name.");
});

test("a session of version 0.5 keeps its former name", async (fake) => {
  const { instance, project } = fake;
  const path = project("my app!");
  const former = formerSessionName(path);
  assert.is.not(former, sessionName(path));
  assert.is((await open(fake, { directory: path })).session, sessionName(path));
  await removeSession(instance, sessionName(path), fake.log);
  const at = new Date().toISOString();
  writeSession(instance, {
    version: 1,
    name: former,
    project: path,
    createdAt: at,
    usedAt: at,
  });
  assert.is((await open(fake, { directory: path })).session, former);
});

test("a new session without a worker leaves nothing behind", async (fake) => {
  const { instance, engine } = fake;
  engine.images.clear();
  const failure = await failureOf(open(fake));
  assert.is(failure.kind, "notFound");
  const { home } = instance;
  assert.equal(readdirSync(home.kept), []);
  assert.equal(readdirSync(home.claude), []);
  assert.equal(readdirSync(home.ports), []);
});

/** A project whose configuration the user is asked about before anything is stored. */
function projectThatAsks({ project }: FakeInstance, name: string): string {
  const directory = project(name);
  mkdirSync(join(directory, ".git"));
  writeFileSync(join(directory, ".git", "HEAD"), "ref: refs/heads/main\n");
  mkdirSync(join(directory, ".git", "objects"));
  mkdirSync(join(directory, ".git", "refs"));
  const config = '[filter "x"]\n\tclean = make\n';
  writeFileSync(join(directory, ".git", "config"), config);
  return directory;
}

test("a failed start keeps the conversation of who opened the session meanwhile", async (fake) => {
  const { engine } = fake;
  const directory = projectThatAsks(fake, "app");
  const approveConfig = () => Promise.resolve(true);
  let session = "";
  const failure = await failureOf(open(fake, {
    directory,
    approveConfig: async () => {
      ({ session } = await open(fake, { directory, approveConfig }));
      converse(fake, session);
      await stopSession(fake.instance, session, fake.log);
      engine.images.clear();
      return true;
    },
  }));
  assert.is(failure.kind, "notFound");
  assert.ok(readSession(fake.instance, session));
  assert.ok(hasConversation(fake.instance, session));
});

test("a failed start keeps a session that is opened while it looks for workers", async (fake) => {
  const { engine, instance } = fake;
  const { docker } = engine;
  let failed = false;
  const usedAt = "2030-01-01T00:00:00.000Z";
  const slow = {
    ...fake,
    instance: {
      ...instance,
      docker: {
        ...docker,
        createContainer: () => {
          failed = true;
          return Promise.reject(new Error("broken"));
        },
        listContainers: async (options: object) => {
          const found = await docker.listContainers(options);
          const record = readSession(instance, session);
          if (failed && record) writeSession(instance, { ...record, usedAt });
          return found;
        },
      } as unknown as typeof docker,
    },
  };
  const session = sessionName(fake.project("app"));
  await failureOf(open(slow));
  assert.is(readSession(instance, session)?.usedAt, usedAt);
  assert.ok(existsSync(join(instance.home.claude, session)));
});

test("a name that another project takes meanwhile is refused", async (fake) => {
  const { instance, project } = fake;
  const directory = projectThatAsks(fake, "app");
  const other = project("other");
  const failure = await failureOf(open(fake, {
    directory,
    name: "work",
    approveConfig: async () => {
      await open(fake, { directory: other, name: "work" });
      return true;
    },
  }));
  assert.is(failure.kind, "busy");
  assert.is(readSession(instance, "work")?.project, other);
});

test("a session that is removed meanwhile gets ports of its own again", async (fake) => {
  const { instance } = fake;
  const directory = projectThatAsks(fake, "app");
  let asked = 0;
  const approveConfig = async () => {
    if (++asked > 1) await removeSession(instance, session, fake.log);
    return true;
  };
  const session = sessionName(directory);
  await open(fake, { directory, approveConfig });
  writeFileSync(
    join(directory, ".git", "config"),
    '[filter "y"]\n\tclean = make\n',
  );
  await open(fake, { directory, approveConfig });
  assert.is(asked, 2);
  const base = readSession(instance, session)?.portBase;
  assert.equal(readdirSync(instance.home.ports), [`${base}`]);
});

test("an existing session is kept if its new worker cannot be created", async (fake) => {
  const { instance, engine } = fake;
  const { session } = await open(fake);
  await stopSession(instance, session, fake.log);
  converse(fake, session);
  engine.images.clear();
  await failureOf(open(fake, { mcp: false }));
  assert.is(readSession(instance, session)?.mcp, undefined);
  assert.ok(hasConversation(instance, session));
});

test("refuses a missing profile before anything is stored", async (fake) => {
  const failure = await failureOf(
    open(fake, { profile: { name: "pyton", build: false } }),
  );
  assert.match(`${failure.message} ${failure.hint}`, /pyton/);
  assert.equal(readdirSync(fake.instance.home.kept), []);
  assert.equal(fake.engine.asked, []);
});

test("does not add an ssh-agent to a running worker", async (fake) => {
  const first = await open(fake);
  const failure = await failureOf(
    open(fake, { sshAgent: "/tmp/agent.sock" }),
  );
  assert.is(failure.kind, "busy");
  assert.match(failure.message, /runs without the ssh-agent/);
  const mounts = fake.engine.find(first.id)?.spec.HostConfig?.Mounts ?? [];
  mounts.push({
    Type: "bind",
    Source: "/tmp/agent.sock",
    Target: "/run/hal9000/ssh-agent.sock",
  });
  const again = await open(fake, { sshAgent: "/tmp/agent.sock" });
  assert.is(again.env["SSH_AUTH_SOCK"], "/run/hal9000/ssh-agent.sock");
});

test("does not change the image of a running worker", async (fake) => {
  const first = await open(fake);
  Object.assign(fake.engine.find(first.id)?.spec ?? {}, { Image: "other" });
  const profile = { name: "base", build: false };
  const failure = await failureOf(open(fake, { profile }));
  assert.is(failure.message, `"${first.worker}" uses image other`);
  // No other image was requested.
  assert.is((await open(fake)).start, "running");
});

test("warns when opening a worker that has lost its network", async (fake) => {
  const { engine, told } = fake;
  await open(fake);
  const net = engine.find("fake-net");
  assert.ok(net);
  net.startedAt = new Date(Date.now() + 60_000).toISOString();
  await open(fake);
  assert.ok(told.some((line) => line.includes("has ended: the session")));
});

test("opens a session even if another instance's container has its name", async (fake) => {
  const { engine, instance } = fake;
  engine.add("mine", { spec: { Labels: { [label.instance]: "other" } } });
  const ready = await open(fake, { name: "mine" });
  assert.is(ready.session, "mine");
  assert.is(ready.worker, instance.names.session("mine"));
  assert.ok(engine.find("mine"));
});

test("passes only model and base URL from the caller's environment to Claude", async (fake) => {
  const { env } = await open(fake, {
    env: {
      ANTHROPIC_BASE_URL: "http://localhost:1",
      ANTHROPIC_MODEL: "m",
      SECRET: "s3cret",
    },
  });
  assert.is(env["ANTHROPIC_BASE_URL"], "http://localhost:1");
  assert.is(env["ANTHROPIC_MODEL"], "m");
  assert.not(JSON.stringify(env).includes("s3cret"));
});

test("tells the agent its ports and limits", async (fake) => {
  const { instance } = fake;
  const { session, env } = await open(fake);
  const path = join(instance.home.claude, session, "hal9000-context.md");
  const text = readFileSync(path, "utf8");
  assert.match(text, `Ports ${env["HAL9000_PORT_BASE"]} to `);
  assert.match(
    text,
    /- Limits: 4.* of memory, 1 CPUs, 100 processes and threads\./,
  );
});

test("startSession() starts Claude once", async (fake) => {
  const { instance, engine } = fake;
  let runs = false;
  const commands: string[] = [];
  engine.run = (command) => {
    commands.push(command.join(" "));
    if (command.includes("new-session")) runs = true;
    return { exitCode: command.includes("has-session") && !runs ? 1 : 0 };
  };
  const ready = await open(fake);
  assert.is(await startSession(instance, ready), "new");
  assert.ok(
    commands.some((command) =>
      command.endsWith(`-s claude ${ready.command.join(" ")}`)
    ),
  );
  const again = await open(fake);
  assert.is(await startSession(instance, again), "running");
  assert.is(
    await startSession(instance, { ...ready, resumes: true }),
    "resumed",
  );
});

test("startSession() reports Claude's output if it does not start", async (fake) => {
  const { instance, engine } = fake;
  engine.run = (command) =>
    command.includes("new-session") || command.includes("has-session")
      ? { exitCode: 1, output: "no such file\n" }
      : { exitCode: 0 };
  const failure = await failureOf(startSession(instance, await open(fake)));
  assert.is(failure.message, "Cannot start Claude: no such file");
});

test("stopSession() ends the CLI, then the worker, and keeps the conversation", async (fake) => {
  const { instance, engine } = fake;
  const commands: string[] = [];
  engine.run = (command) => {
    commands.push(command.at(-1) ?? "");
    return { exitCode: 0 };
  };
  const { session, id } = await open(fake);
  converse(fake, session);
  assert.is(await stopSession(instance, session, fake.log), true);
  assert.match(commands.at(-1) ?? "", /list-panes.*kill -s HUP/s);
  assert.not(engine.find(id));
  assert.ok(hasConversation(instance, session));
  assert.is(await stopSession(instance, session, fake.log), false);
});

test("removeSession() removes home, record and ports, and keeps the project", async (fake) => {
  const { instance, project, engine } = fake;
  const { session } = await open(fake);
  const other = await open(fake, { directory: project("other") });
  await removeSession(instance, session, fake.log);
  const { home } = instance;
  assert.is(readSession(instance, session), undefined);
  assert.equal(readdirSync(home.claude), [other.session]);
  assert.is(readdirSync(home.ports).length, 1);
  assert.ok(existsSync(project("app")));
  assert.ok(engine.find(other.id));
});

test("findSession() suggests the nearest name", async (fake) => {
  await open(fake, { name: "review" });
  assert.is(findSession(fake.instance, "review", "/", fake.log).name, "review");
  try {
    findSession(fake.instance, "reviev", "/", fake.log);
    assert.unreachable();
  } catch (error) {
    const { message, hint } = error as Error & { hint: string };
    assert.is(message, 'There is no session "reviev"');
    assert.match(hint, /review/);
  }
});

test("syncSession() refuses a session that has a worker", async (fake) => {
  const { instance, root, log } = fake;
  const { session } = await open(fake);
  const claudeHome = join(root, "claude-home");
  mkdirSync(claudeHome);
  writeFileSync(join(claudeHome, "CLAUDE.md"), "Be brief");
  const request = { claudeHome, inheritHooks: false };
  const record = findSession(instance, session, "/", log);
  const failure = await failureOf(syncSession(instance, record, request, log));
  assert.is(failure.kind, "busy");
  await stopSession(instance, session, log);
  const { written } = await syncSession(instance, record, request, log);
  assert.equal(written, ["CLAUDE.md"]);
  const laid = join(instance.home.claude, session, "CLAUDE.md");
  assert.is(readFileSync(laid, "utf8"), "Be brief");
});

test("a new session inherits the host's configuration, an existing one does not", async (fake) => {
  const { instance, root } = fake;
  const claudeHome = join(root, "claude-home");
  mkdirSync(claudeHome);
  writeFileSync(join(claudeHome, "CLAUDE.md"), "Be brief");
  const inherit = { claudeHome, inheritHooks: false };
  const { session } = await open(fake, { inherit });
  const laid = join(instance.home.claude, session, "CLAUDE.md");
  assert.is(readFileSync(laid, "utf8"), "Be brief");
  await stopSession(instance, session, fake.log);
  writeFileSync(join(claudeHome, "CLAUDE.md"), "Be long");
  await open(fake, { inherit });
  assert.is(readFileSync(laid, "utf8"), "Be brief");
});

test("an empty file or one of another type is not a conversation", (fake) => {
  const { instance } = fake;
  const directory = join(instance.home.claude, "s", "projects", "-workspace");
  mkdirSync(directory, { recursive: true });
  assert.not(hasConversation(instance, "s"));
  writeFileSync(join(directory, "empty.jsonl"), "");
  writeFileSync(join(directory, "notes.txt"), "x");
  mkdirSync(join(directory, "directory.jsonl"));
  assert.not(hasConversation(instance, "s"));
  assert.is(lastSaidAt(instance, "s", Date.now() + 1000), 0);
  const at = new Date("2026-01-01T00:00:00Z");
  converse(fake, "s", at);
  assert.ok(hasConversation(instance, "s"));
  assert.is(lastSaidAt(instance, "s", Date.now() + 1000), at.getTime());
});

async function listed(fake: FakeInstance) {
  const sessions = await listSessions(fake.instance, {}, fake.log);
  return sessions.map(({ name, state, waitingFor, attached }) => ({
    name,
    state,
    waitingFor,
    attached,
  }));
}

test("lists sessions with their activity", async (fake) => {
  const { instance, engine, told } = fake;
  const { session, id } = await open(fake, { name: "talk" });
  const is = (state: string, more: object = {}) => [{
    name: "talk",
    state,
    waitingFor: null,
    attached: 0,
    ...more,
  }];
  const says = (output: string, exitCode = 0) => {
    engine.run = () => ({ exitCode, output });
  };
  says("", 1);
  assert.equal(await listed(fake), is("exited"));
  says("screen Settings \x1b Error\n");
  assert.equal(
    await listed(fake),
    is("starting", { waitingFor: "Settings   Error" }),
  );
  says("client\nclient\n");
  assert.equal(await listed(fake), is("starting", { attached: 2 }));
  says('client\nown {"pid":7,"status":"busy"}\n');
  assert.equal(await listed(fake), is("working", { attached: 1 }));
  engine.run = () => {
    throw new Error("it is ill");
  };
  assert.equal(await listed(fake), is("unknown"));
  const worker = engine.find(id) as FakeContainer;
  worker.state = "paused";
  assert.equal(await listed(fake), is("paused"));
  worker.state = "running";
  const net = engine.find("fake-net") as FakeContainer;
  net.state = "exited";
  assert.equal(await listed(fake), is("offline"));
  await stopSession(instance, session, fake.log);
  assert.equal(await listed(fake), is("stopped"));
  assert.equal(told.filter((line) => line.startsWith("warning")), [
    "warning: not logged in: Claude asks for it. " +
    "To log in for all sessions: claudy login",
  ]);
});

test("sorts sessions by their last message", async (fake) => {
  const { instance, log } = fake;
  const at = "2026-01-01T00:00:00.000Z";
  const session = (name: string) =>
    writeSession(instance, {
      version: 1,
      name,
      project: "/p",
      createdAt: at,
      usedAt: at,
    });
  session("quiet");
  session("talk");
  converse(fake, "talk", new Date("2026-02-01T00:00:00.000Z"));
  converse(fake, "quiet", new Date("2025-02-01T00:00:00.000Z"));
  const active = Object.fromEntries(
    (await listSessions(instance, {}, log)).map((
      one,
    ) => [one.name, one.activeAt]),
  );
  assert.equal(active, { quiet: at, talk: "2026-02-01T00:00:00.000Z" });
});

test("followers of sessions are notified immediately, and only of changes", async (fake) => {
  const { instance, engine, log } = fake;
  const { session, id } = await open(fake, { name: "talk" });
  const stop = new AbortController();
  const heard: string[] = [];
  const following = followSessions(
    instance,
    { stop: stop.signal, log },
    (workers) => {
      heard.push(
        workers.map(({ worker, said }) =>
          `${worker.name} ${worker.state} ${said?.activity}`
        ).join(),
      );
    },
  );
  const until = (count: number) =>
    waitFor(() => heard.length >= count, { for: "news", timeoutMs: 4000 });
  await until(1);
  const noted = join(instance.home.claude, session, "hal9000-activity.json");
  writeFileSync(noted, '{"status":"waiting"}');
  await until(2);
  const worker = engine.find(id) as FakeContainer;
  worker.state = "paused";
  engine.emit("pause", worker);
  await until(3);
  worker.state = "exited";
  engine.emit("die", worker);
  await until(4);
  // Longer than the interval between checks.
  await sleep(700);
  stop.abort();
  await following;
  assert.equal(heard, [
    "talk running undefined",
    "talk running waiting",
    "talk paused waiting",
    "",
  ]);
});

test("retries if the engine fails while sessions are followed", async (fake) => {
  const { instance, engine, told, log } = fake;
  await open(fake, { name: "talk" });
  let failures = 1;
  const docker = {
    ...engine.docker,
    listContainers: (...given: []) =>
      failures-- > 0
        ? Promise.reject(new Error("no answer"))
        : engine.docker.listContainers(...given),
  } as unknown as typeof engine.docker;
  const stop = new AbortController();
  await followSessions(
    { ...instance, docker },
    { stop: stop.signal, log },
    () => stop.abort(),
  );
  assert.ok(told.includes("Cannot watch the sessions: no answer"));
});

test.run();
