// Reaching an engine by ssh, with TLS, and in the words of its API.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { cliFailure, runDocker } from "../../lib/docker/docker-cli.ts";
import { connect } from "../../lib/docker/connection.ts";
import { engineFailure } from "../../lib/docker/docker-errors.ts";
import { engineInfo } from "../../lib/docker/engine-info.ts";
import { endpointOf, sshTarget } from "../../lib/docker/endpoint.ts";
import { privateDirectory, SshAgent } from "../../lib/docker/ssh.ts";
import { askEngine } from "../../lib/machine/engine.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { main as coordinator } from "../../scripts/coordinator.ts";
import { type Served, serveEngine } from "../helper/served-engine.ts";

interface Context extends Served {
  directory: string;
  /** The fake ssh's environment, and what it was called with. */
  ssh: (script: string) => NodeJS.ProcessEnv;
  asked: () => string[];
  servers: Server[];
}

const test = suite<Context>("connections");

test.before.each(async (context) => {
  Object.assign(context, await serveEngine());
  const directory = join(context.root, "connections");
  context.directory = directory;
  context.servers = [];
  mkdirSync(directory);
  const asked = join(directory, "asked");
  context.asked = () =>
    existsSync(asked) ? readFileSync(asked, "utf8").trim().split("\n") : [];
  context.ssh = (script) => {
    const file = join(directory, "ssh");
    const bridge = `const s = require("net").connect("${context.socket}");
      process.stdin.pipe(s).pipe(process.stdout)`;
    writeFileSync(join(directory, "bridge.cjs"), bridge);
    writeFileSync(
      file,
      `#!/bin/sh
echo "$*" | sed 's/ControlPath=[^ ]*/ControlPath=X/' >>"${asked}"
for word; do last=$word; done
dial() { exec node "${directory}/bridge.cjs"; }
${script}`,
    );
    chmodSync(file, 0o755);
    return {
      PATH: `${directory}:${process.env["PATH"]}`,
      DOCKER_HOST: "ssh://ann@engine:2222",
    };
  };
});

test.after.each(({ close, servers }) => {
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
  return close();
});

/** Answers with a port of this machine. */
async function listen({ servers }: Context, server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  const error = await promise.then(
    () => assert.unreachable(),
    (error) => error,
  );
  return engineFailure(error, "Cannot x");
}

/** A login that works, with a user who would be asked about an unknown host. */
const works = `case "$*" in
  *"-O check"*) exit 255 ;;
  -G*) echo stricthostkeychecking ask ;;
  *" true") ;;
  *) dial ;;
esac`;

test("logs in to the host once, and shares the connection", async (context) => {
  const docker = await connect(context.ssh(works));
  const [workers, info] = await Promise.all([
    docker.listContainers(),
    docker.info(),
  ]);
  assert.ok(workers.length > 0 && info.NCPU > 0);
  const [check, config, login, ...others] = context.asked();
  const dials = others.filter((words) => words !== check);
  const to = "-l ann -p 2222 -- engine";
  const shared = "-o ConnectTimeout=30 -o ServerAliveInterval=5 " +
    "-o ForwardAgent=no -o ForwardX11=no -o ClearAllForwardings=yes " +
    "-o RemoteCommand=none -o PermitLocalCommand=no -o ControlPath=X -T";
  const strict = "-o StrictHostKeyChecking=yes";
  assert.is(check, `-O check -o ControlMaster=no ${shared} ${to}`);
  assert.is(config, `-G ${to}`);
  assert.is(
    login,
    `-o ControlMaster=auto -o ControlPersist=60 ${strict} ${shared} ${to} true`,
  );
  for (const dial of dials) {
    const command = "docker system dial-stdio";
    assert.is(dial, `${strict} -o ControlMaster=no ${shared} ${to} ${command}`);
  }
  assert.ok(dials.length <= 2);
});

test("leaves a choice of the user's configuration for unknown hosts", async (context) => {
  const accepts = works.replace("checking ask", "checking accept-new");
  await (await connect(context.ssh(accepts))).info();
  assert.is(context.asked().join("\n").includes("StrictHost"), false);
});

test("uses a connection that exists", async (context) => {
  const docker = await connect(context.ssh(`[ "$2" = check ] || dial`));
  await docker.info();
  assert.is(context.asked().length, 2);
});

test("names a socket of the engine's machine to its docker", async (context) => {
  const env = context.ssh(works);
  await (await connect({ ...env, DOCKER_HOST: "ssh://h/it's.sock" })).info();
  const command = "docker --host 'unix:///it'\\''s.sock' system dial-stdio";
  assert.ok(context.asked().at(-1)?.endsWith(`-T -- h ${command}`));
});

test("a docker command uses the shared connection", async (context) => {
  const { directory, asked } = context;
  const call = `require("http").get({ path: "/info",
    socketPath: process.env.DOCKER_HOST.slice("unix://".length) },
    (answer) => process.exitCode = answer.statusCode - 193)`;
  writeFileSync(join(directory, "call.cjs"), call);
  writeFileSync(
    join(directory, "docker"),
    `#!/bin/sh\nexec node "${directory}/call.cjs"\n`,
    { mode: 0o755 },
  );
  const shared = `[ "$2" = check ] || dial`;
  const env = context.ssh(shared) as Record<string, string>;
  // Of a killed process with the same pid.
  const left = join(privateDirectory(), `${process.pid}.sock`);
  writeFileSync(left, "");
  assert.is(await runDocker(["logs", "x"], { env }), 7); // 200
  assert.match(asked().at(-1) ?? "", /docker system dial-stdio$/);
  assert.is(existsSync(left), false);
  const refused = context.ssh(`[ "$1" != -O ] && echo Refused. >&2; exit 255`);
  const failure = await failureOf(
    runDocker(["logs", "x"], { env: refused as Record<string, string> }),
  );
  assert.match(failure.message, "out of reach (Refused)");
});

test("keeps sockets of connections in a directory of the user's own", (context) => {
  const { directory } = context;
  const uid = process.getuid?.() ?? 0;
  const path = join(directory, "sockets");
  assert.is(privateDirectory(uid, path), path);
  assert.is(statSync(path).mode & 0o777, 0o700);
  assert.is(privateDirectory(uid, path), path);
  const refused = (change: () => void, own = uid) => {
    change();
    assert.throws(
      () => privateDirectory(own, path),
      /the directory is not yours alone/,
    );
  };
  refused(() => {}, uid + 1);
  refused(() => chmodSync(path, 0o710));
  refused(() => {
    renameSync(path, `${path}2`);
    chmodSync(`${path}2`, 0o700);
    symlinkSync(`${path}2`, path);
  });
});

test("other configurations of ssh use other connections", async (context) => {
  const env = context.ssh(`echo "$*" >>"${context.directory}/whole"
${works}`);
  const other = { ...env, PATH: `${env["PATH"]}:/other` };
  await (await connect(env)).info();
  await (await connect(other)).info();
  await (await connect({ ...env, DOCKER_HOST: "ssh://engine" })).info();
  const words = readFileSync(join(context.directory, "whole"), "utf8");
  const paths = [...words.matchAll(/ControlPath=(\S+)/g)].map(([, path]) =>
    path
  );
  assert.is(new Set(paths).size, 3);
  // sshd's default is 10, for all processes of a user.
  const target = sshTarget(endpointOf(env));
  assert.ok(target && new SshAgent(target, env).maxSockets < 10);
});

test("refuses a changed host key in ssh's words", async (context) => {
  const env = context.ssh(`case "$*" in
  *"-O check"*) exit 255 ;;
  -G*) ;;
  *) printf '@@@@@@\r\n@ WARNING: @\r\nOffending key in known_hosts:1\r\nHost key verification failed.\r\n' >&2; exit 255 ;;
esac`);
  const { code, stderr } = await context.run(coordinator, ["list"], { env });
  assert.is(code, 3);
  assert.is(
    stderr,
    `error: Cannot run hal9000-coordinator: the engine at ssh://ann@engine:2222 is out of reach (Host key verification failed)
Offending key in known_hosts:1
See what is wrong, and log in: ssh -l ann -p 2222 engine docker version
`,
  );
});

test("reports a host without docker, and a machine without ssh", async (context) => {
  const { directory } = context;
  const env = context.ssh(`case "$*" in
  *dial-stdio) echo 'sh: docker: not found' >&2; exit 127 ;;
esac`);
  const fault = async (env: NodeJS.ProcessEnv) => {
    const { kind, message } = await failureOf((await connect(env)).info());
    return `${kind}: ${/\((.*)\)/.exec(message)?.[1]}`;
  };
  assert.is(await fault(env), "engine: sh: docker: not found");
  mkdirSync(join(directory, "empty"));
  const none = { ...env, PATH: join(directory, "empty") };
  assert.is(await fault(none), "engine: no ssh");
});

test("refuses addresses that are not those of an engine", async () => {
  for (const host of ["ssh://ann:secret@engine", "ssh://", "fd://3", "tcp:x"]) {
    const failure = await failureOf(connect({ DOCKER_HOST: host }));
    assert.is(failure.kind, "engine");
    assert.match(failure.message, "Cannot use the engine at");
    assert.not.match(failure.message, "secret");
  }
});

/** A CA, and certificates of the engine and of a client. */
function makeCertificates(directory: string): void {
  const openssl = (...args: string[]) =>
    execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
  const key = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
  ];
  openssl(
    ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=test CA"],
    ...["-keyout", "ca.key", "-out", "ca.pem"],
  );
  writeFileSync(join(directory, "names"), "subjectAltName=IP:127.0.0.1");
  for (const [name, file] of [["engine", "engine"], ["client", ""]]) {
    const prefix = file ? `${file}-` : "";
    openssl(
      ...["req", ...key, "-subj", `/CN=${name}`, "-keyout", `${prefix}key.pem`],
      ...["-out", "request.pem"],
    );
    openssl(
      ...["x509", "-req", "-days", "2", "-in", "request.pem", "-CA", "ca.pem"],
      ...["-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"],
      ...["-out", `${prefix}cert.pem`],
    );
  }
}

/** An engine that accepts only clients with a certificate; returns its port. */
async function listenWithTls(context: Context): Promise<number> {
  const { directory } = context;
  const read = (file: string) => readFileSync(join(directory, file));
  const answer = (_: IncomingMessage, response: ServerResponse) =>
    response.setHeader("api-version", "1.45").end('{"NCPU":7}');
  const server = createTlsServer({
    ca: read("ca.pem"),
    cert: read("engine-cert.pem"),
    key: read("engine-key.pem"),
    requestCert: true,
    rejectUnauthorized: true,
  }, answer);
  return await listen(context, server as unknown as Server);
}

test("uses TLS as the Docker CLI does", async (context) => {
  const { directory, root } = context;
  makeCertificates(directory);
  const host = `tcp://127.0.0.1:${await listenWithTls(context)}`;
  const cpus = async (env: NodeJS.ProcessEnv) => {
    const { NCPU } = await (await connect(env)).info();
    return NCPU;
  };
  const verified = { DOCKER_HOST: host, DOCKER_TLS_VERIFY: "1" };
  assert.is(await cpus({ ...verified, DOCKER_CERT_PATH: directory }), 7);
  // Without DOCKER_CERT_PATH, the files of the Docker CLI's directory.
  assert.is(await cpus({ ...verified, DOCKER_CONFIG: directory }), 7);

  const none = join(root, "none");
  mkdirSync(none);
  const unknown = await failureOf(
    cpus({ ...verified, DOCKER_CERT_PATH: none }),
  );
  assert.is(unknown.exitCode, 3);
  assert.match(unknown.message, /certificate|issuer/i);
  assert.match(unknown.hint ?? "", `in ${none}: docker version`);

  const plain = await failureOf(cpus({ DOCKER_HOST: host }));
  assert.is(plain.exitCode, 3);
  assert.match(plain.hint ?? "", "DOCKER_TLS_VERIFY=1");
});

test("uses the TLS files of a context", async (context) => {
  const { directory } = context;
  makeCertificates(directory);
  const port = await listenWithTls(context);
  const config = join(directory, "config");
  const { createHash } = process.getBuiltinModule("node:crypto");
  const digest = createHash("sha256").update("far").digest("hex");
  const meta = join(config, "contexts/meta", digest);
  const tls = join(config, "contexts/tls", digest, "docker");
  for (const made of [meta, tls]) mkdirSync(made, { recursive: true });
  const describe = (docker: object) =>
    writeFileSync(
      join(meta, "meta.json"),
      JSON.stringify({ Name: "far", Endpoints: { docker } }),
    );
  const copy = (file: string) =>
    writeFileSync(join(tls, file), readFileSync(join(directory, file)));
  const env = { DOCKER_CONFIG: config, DOCKER_CONTEXT: "far" };
  const info = async () => await (await connect(env)).info();

  ["cert.pem", "key.pem"].forEach(copy);
  describe({ Host: `tcp://127.0.0.1:${port}` });
  assert.is((await failureOf(info())).exitCode, 3); // the CA is unknown
  describe({ Host: `tcp://127.0.0.1:${port}`, SkipTLSVerify: true });
  assert.is((await info()).NCPU, 7);
  describe({ Host: `tcp://127.0.0.1:${port}` });
  copy("ca.pem");
  assert.is((await info()).NCPU, 7);
});

test("reports an address where something else answers", async (context) => {
  const answers: [header: string, body: string][] = [
    ["text/html", "<html>Hello</html>"],
    ["application/json", "[]"],
    ["application/json", '{"ApiVersion":41,"Version":{}}'],
    ["application/json", '{"ApiVersion":"../1.41","Version":"1"}'],
  ];
  for (const [type, body] of answers) {
    for (const api of [undefined, "../../x"]) {
      const port = await listen(
        context,
        createServer((_, response) => {
          response.setHeader("content-type", type);
          if (api) response.setHeader("api-version", api);
          response.end(body);
        }),
      );
      const env = { DOCKER_HOST: `tcp://127.0.0.1:${port}` };
      const failure = await failureOf((await connect(env)).info());
      assert.is(failure.exitCode, 3);
      const fault = "what answers there is not an engine";
      assert.match(failure.message, `out of reach (${fault})`);
      const asked = await askEngine(env);
      assert.is("fault" in asked && asked.fault, fault);
    }
  }
});

/** An engine with a range of APIs, and the paths that it was asked for. */
async function listenWithApi(
  context: Context,
  [oldest, latest]: [string, string],
): Promise<{ env: NodeJS.ProcessEnv; paths: string[] }> {
  const paths: string[] = [];
  const port = await listen(
    context,
    createServer(({ url = "" }, response) => {
      paths.push(url);
      response.setHeader("api-version", latest);
      const version = {
        Version: "99",
        ApiVersion: latest,
        MinAPIVersion: oldest,
      };
      const asked = /^\/v1\.(\d+)\//.exec(url)?.[1];
      if (asked && Number(asked) < Number(oldest.split(".")[1])) {
        response.writeHead(400).end('{"message":"too old"}');
      } else response.end(JSON.stringify(version));
    }),
  );
  return { env: { DOCKER_HOST: `tcp://127.0.0.1:${port}` }, paths };
}

test("speaks the latest API that both have", async (context) => {
  for (
    const [range, spoken] of [
      [["1.12", "1.41"], "1.41"],
      [["1.44", "1.51"], "1.51"],
      [["1.44", "1.70"], "1.51"],
    ] as [[string, string], string][]
  ) {
    const { env, paths } = await listenWithApi(context, range);
    const docker = await connect(env);
    await docker.info();
    await docker.info();
    await docker.version();
    const info = `/v${spoken}/info`;
    assert.equal(paths, ["/_ping", info, info, "/version"]);
  }
});

test("refuses engines that are too old or too new", async (context) => {
  const refusal = async (range: [string, string]) => {
    const { env } = await listenWithApi(context, range);
    return await failureOf((await connect(env)).info());
  };
  const old = await refusal(["1.12", "1.40"]);
  assert.is(old.exitCode, 3);
  assert.match(old.message, "engine 99: its API 1.40 is older than 1.41");
  const young = await refusal(["1.52", "1.60"]);
  assert.is(young.exitCode, 3);
  assert.match(young.message, "engine 99: it requires API 1.52");
  assert.match(young.hint ?? "", "claudy upgrade");
});

test("cliFailure() compares the docker command with the engine's range", () => {
  const engine = { Version: "29", ApiVersion: "1.51", MinAPIVersion: "1.44" };
  const about = (api: string, env = {}) =>
    cliFailure({ version: "1", api, works: false }, engine, env);
  assert.is(about("1.44"), undefined);
  assert.is(about("1.51"), undefined);
  const old = about("1.41");
  assert.is(old?.exitCode, 3);
  assert.match(old?.message ?? "", "has API 1.41, and engine 29 accepts 1.44");
  assert.match(old?.hint ?? "", "Install a newer one");
  const fixed = about("1.99", { DOCKER_API_VERSION: "1.99" });
  assert.match(fixed?.hint ?? "", "unset DOCKER_API_VERSION");
});

test("a failed docker command tells whether the engine accepts its API", async (context) => {
  const { directory } = context;
  const { env } = await listenWithApi(context, ["1.44", "1.51"]);
  const docker = (version: string) =>
    writeFileSync(
      join(directory, "docker"),
      `#!/bin/sh\n[ $1 != version ] || { ${version}; }\nexit 1\n`,
      { mode: 0o755 },
    );
  const ours = {
    DOCKER_HOST: env["DOCKER_HOST"] ?? "",
    DOCKER_API_VERSION: "",
    PATH: `${directory}:${process.env["PATH"]}`,
  };
  docker("echo 20.10 1.41; exit 1");
  const old = await failureOf(runDocker(["logs", "x"], { env: ours }));
  assert.is(old.exitCode, 3);
  assert.match(
    old.message,
    "command 20.10 has API 1.41, and engine 99 accepts",
  );
  docker("echo 28.2 1.50; exit 0"); // the command itself has failed
  assert.is(await runDocker(["logs", "x"], { env: ours }), 1);
  docker("echo 28.2 1.50; exit 1"); // for another reason
  assert.is(await runDocker(["logs", "x"], { env: ours }), 1);
});

/** An engine of this test: what it answers by the end of the path; null for nothing. */
async function engineOf(
  context: Context,
  answers: Record<string, unknown>,
): Promise<NodeJS.ProcessEnv> {
  const server = createServer(({ url = "" }, response) => {
    const path = url.replace(/\?.*/, "");
    const [, answer] = Object.entries(answers)
      .find(([end]) => path.endsWith(end)) ?? [];
    if (answer === null) return;
    response.setHeader("Api-Version", "1.41");
    if (answer instanceof Function) return answer(response);
    response.end(path === "/_ping" ? "OK" : JSON.stringify(answer));
  });
  const port = await listen(context, server);
  return { DOCKER_HOST: `tcp://127.0.0.1:${port}` };
}

test("an engine that accepts connections and does not answer is out of reach", async (context) => {
  const half = (response: ServerResponse) => void response.write("[");
  const late = "is out of reach (no answer within 0.2 s)";
  const never = await engineOf(context, { "": null });
  for (
    const env of [
      never,
      await engineOf(context, { "/_ping": "", "/containers/json": null }),
      await engineOf(context, { "/_ping": "", "/containers/json": half }),
    ]
  ) {
    const docker = await connect(env, { answerMs: 200 });
    const startedAt = performance.now();
    const { exitCode, message } = await failureOf(docker.listContainers());
    assert.is(exitCode, 3);
    assert.match(message, late);
    assert.ok(performance.now() - startedAt < 3000);
  }
  const version = await connect(never, { answerMs: 200 });
  assert.match((await failureOf(version.version())).message, late);
});

test("what may take long has no deadline", async (context) => {
  const slow = (response: ServerResponse) =>
    void setTimeout(() => response.end("{}"), 500);
  const env = await engineOf(context, {
    "/_ping": "",
    "/events": slow,
    "/system/df": slow,
    "/wait": slow,
  });
  const docker = await connect(env, { answerMs: 200 });
  let text = "";
  const [events] = await Promise.all([
    docker.getEvents(),
    docker.df(),
    docker.getContainer("a").wait(),
  ]);
  for await (const chunk of events) text += chunk;
  assert.is(text, "{}");
});

test("an answer that is not an engine's is reported as that", async (context) => {
  const about = { NCPU: 4, MemTotal: 2 ** 30 };
  const info = async (answer: unknown) => {
    const env = await engineOf(context, { "/_ping": "", "/info": answer });
    return await engineInfo(await connect(env));
  };
  assert.is((await info({ ...about, SecurityOptions: null })).cpus, 4);
  for (
    const [answer, place] of [
      [{ ...about, NCPU: "4" }, "NCPU"],
      [{ ...about, NCPU: 1e300 }, "NCPU"],
      [{ ...about, MemTotal: 0 }, "MemTotal"],
      [{ ...about, SecurityOptions: "name=rootless" }, "SecurityOptions"],
      [[], "NCPU"],
      ["text", "the whole"],
    ]
  ) {
    const { exitCode, message } = await failureOf(info(answer));
    assert.is(exitCode, 3);
    assert.match(message, `its description is not valid (${place}: `);
  }
  const env = await engineOf(context, { "/_ping": "", "/json": {} });
  const docker = await connect(env);
  const wrong = await failureOf(docker.listContainers());
  assert.match(wrong.message, "(what answers there is not an engine)");
});

test.run();
