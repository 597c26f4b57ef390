// Other machines, with an ssh that runs the command line on this one.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract, pack } from "tar-stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { checkHost } from "../../lib/hosts/check.ts";
import {
  findElsewhere,
  hostThatHad,
  sessionsElsewhere,
} from "../../lib/hosts/elsewhere.ts";
import {
  fetchProject,
  hostRepository,
  projectOf,
  sendProject,
} from "../../lib/hosts/git.ts";
import {
  checkHostName,
  type Host,
  readHosts,
  removeHost,
  saveHost,
  targetOf,
} from "../../lib/hosts/hosts.ts";
import { chainIds, withoutLayers } from "../../lib/hosts/install.ts";
import { askHost, claudyThere } from "../../lib/hosts/remote.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  env: NodeJS.ProcessEnv;
  bin: string;
}

const test = suite<Context>("hosts");

/** Logs in at once, and runs what comes after the destination; "slow" never answers. */
const fakeSsh = `#!/bin/sh
case " $* " in *" ControlMaster=auto "*) echo "$*" >>"$HOME/logins" ;; esac
case " $* " in
*" -O check "*) exit 1 ;;
*" -G "*) echo stricthostkeychecking true; exit ;;
*" -- slow "*) exec sleep 60 ;;
*" -- strange "*) echo 'Host key verification failed.' >&2; exit 255 ;;
esac
while [ "$1" != -- ] && [ $# -gt 1 ]; do
  case $1 in -o | -l | -p | -G) shift ;; esac
  case $1 in -*) ;; *[a-z]*) case $2 in git-*) break ;; esac ;; esac
  shift
done
[ "$1" != -- ] || shift
shift
exec sh -c "$*"
`;

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  context.bin = join(context.root, "bin");
  mkdirSync(context.bin, { recursive: true });
  program(context, "ssh", fakeSsh);
  context.env = {
    PATH: `${context.bin}:${process.env["PATH"]}`,
    HOME: context.root,
    GIT_CONFIG_NOSYSTEM: "1",
  };
});
test.after.each(({ end }) => end());

function program({ bin }: Pick<Context, "bin">, name: string, text: string) {
  const path = join(bin, name);
  writeFileSync(path, text, { mode: 0o755 });
  return path;
}

/** A host whose claudy prints a text. */
function hostWith(
  context: Context,
  name: string,
  printed: string,
  exitCode = 0,
): Host {
  const said = join(context.root, `${name}.said`);
  writeFileSync(said, printed);
  const text = `#!/bin/sh\ncat '${said}'\nexit ${exitCode}\n`;
  const host: Host = {
    name,
    url: `ssh://${name}`,
    home: null,
    program: program(context, `claudy-${name}`, text),
  };
  saveHost(context.instance, host);
  return host;
}

const session = (name: string) => ({
  name,
  project: "/p",
  state: "working",
  createdAt: "2026-01-01T00:00:00Z",
  activeAt: "2026-01-01T00:00:00Z",
  later: 1,
});

test("names and addresses", () => {
  for (const name of ["a", "box-1", "9"]) assert.is(checkHostName(name), name);
  for (const name of ["", "A", "-a", "a b", "../x", "any", "local"]) {
    assert.throws(() => checkHostName(name), /Cannot use/);
  }
  assert.is(targetOf({ name: "x", url: "ssh://u@h:22" }).destination, "h");
  for (
    const url of ["ssh://-oProxyCommand=x", "h", "ssh://u:p@h", "ssh://h/x"]
  ) assert.throws(() => targetOf({ name: "x", url }), /address/);
});

test("hosts are kept, replaced and forgotten", ({ instance }) => {
  const host = { name: "a", url: "ssh://a", home: null, program: null };
  saveHost(instance, host);
  saveHost(instance, { ...host, url: "ssh://b" });
  assert.equal(readHosts(instance.home).map(({ url }) => url), ["ssh://b"]);
  removeHost(instance, "a");
  assert.equal(readHosts(instance.home), []);
  assert.throws(() => removeHost(instance, "a"), /no host "a"/);
  writeFileSync(instance.home.hosts, "{");
  assert.throws(() => readHosts(instance.home), /Cannot read the hosts/);
});

test("words reach claudy there as they are", async (context) => {
  const host = hostWith(context, "a", "");
  const echo = program(
    context,
    "echo words",
    '#!/bin/sh\nfor word; do printf "%s\\n" "[$word]"; done\nprintf "%s" "$HAL9000_HOME $HAL9000_HOSTS"\n',
  );
  const words = ["a b", "'", '"', "$HOME", "`x`", "\\", "", "*", "ä"];
  const there = { ...host, program: echo, home: "/x y" };
  const { stdout } = await askHost(there, claudyThere(there, words), {
    env: context.env,
    timeoutMs: 10_000,
  });
  assert.is(
    stdout,
    `${words.map((word) => `[${word}]\n`).join("")}/x y off`,
  );
});

test("a host that does not answer delays nothing, and keeps what it had", async (context) => {
  const { instance, env } = context;
  hostWith(context, "fine", JSON.stringify([session("one")]));
  const slow = hostWith(context, "slow", JSON.stringify([session("two")]));
  saveHost(instance, { ...slow, url: "ssh://fast" });
  const before = await sessionsElsewhere(instance, env, 10_000);
  assert.equal(before.map(({ fault }) => fault), [null, null]);
  saveHost(instance, slow);
  hostWith(context, "strange", "[]");
  const began = performance.now();
  const after = await sessionsElsewhere(instance, env, 1000);
  assert.ok(performance.now() - began < 5000);
  const of = (name: string) => after.find(({ host }) => host === name);
  assert.equal(of("fine")?.sessions.map(({ name }) => name), ["one"]);
  assert.is(of("slow")?.fault, 'Host "slow" does not answer');
  assert.equal(of("slow")?.sessions.map(({ name }) => name), ["two"]);
  const seen = before.find(({ host }) => host === "slow")?.seenAt;
  assert.is(of("slow")?.seenAt, seen);
  assert.match(of("strange")?.fault ?? "", "Host key verification failed");
  const off = { ...env, HAL9000_HOSTS: "off" };
  assert.equal(await sessionsElsewhere(instance, off), []);
  // A list asks for no password.
  const logins = readFileSync(join(context.root, "logins"), "utf8");
  assert.ok(
    logins.split("\n").filter(Boolean).every((words) =>
      words.includes("BatchMode=yes")
    ),
  );
});

test("answers that are not those of a list", async (context) => {
  const { instance, env } = context;
  const names = ["..", "../x", "a/b", "a\x1b[2J"].map((name, at) => {
    hostWith(context, `name${at}`, JSON.stringify([session(name)]));
    return `name${at}`;
  });
  hostWith(context, "text", "hello");
  hostWith(context, "deep", "[".repeat(1e6));
  hostWith(context, "failed", "", 3);
  const all = await sessionsElsewhere(instance, env, 20_000);
  for (const host of [...names, "text", "deep"]) {
    const found = all.find((one) => one.host === host);
    assert.is(
      found?.fault,
      `Host "${host}": It has another version of this program`,
    );
  }
  hostWith(
    context,
    "more",
    JSON.stringify([{ ...session("x"), workspace: 1 }]),
  );
  const [more] = (await sessionsElsewhere(instance, env, 20_000))
    .filter(({ host }) => host === "more");
  assert.not(Object.hasOwn(more?.sessions[0] ?? {}, "workspace"));
  hostWith(context, "long", " ".repeat(9 * 1024 ** 2));
  hostWith(context, "many", `[${"0,".repeat(1e6)}0]`);
  const again = await sessionsElsewhere(instance, env, 20_000);
  for (const host of ["long", "many"]) {
    const { fault = "" } = again.find((one) => one.host === host) ?? {};
    assert.match(fault ?? "", /another version|too long/);
  }
  const failed = all.find(({ host }) => host === "failed");
  assert.is(failed?.fault, 'Host "failed": The command has failed there');
});

test("finds the host of a session by its name or a part of it", async (context) => {
  const { instance, env } = context;
  hostWith(context, "a", JSON.stringify([session("shop"), session("same")]));
  hostWith(context, "b", JSON.stringify([session("shop2"), session("same")]));
  const find = async (word: string) =>
    (await findElsewhere(instance, word, env))?.host.name;
  assert.is(await find("shop"), "a");
  assert.is(await find("shop2"), "b");
  assert.is(await find("op2"), "b");
  assert.is(await find("none"), undefined);
  assert.is(hostThatHad(instance, "shop2", env), "b");
  assert.is(
    hostThatHad(instance, "shop", { ...env, HAL9000_HOSTS: "off" }),
    undefined,
  );
  assert.is(hostThatHad(instance, "op2", env), undefined);
  // A part of a name that was there before is no answer.
  hostWith(context, "b", JSON.stringify([session("sho"), session("same")]));
  assert.is(await find("shop2"), "b");
  assert.is(await find("sho"), "b");
  const hosts = readFileSync(instance.home.hosts);
  writeFileSync(instance.home.hosts, "{");
  assert.is(hostThatHad(instance, "shop2", env), undefined);
  writeFileSync(instance.home.hosts, hosts);
  for (const word of ["same", "s"]) {
    await find(word).then(
      () => assert.unreachable(),
      ({ message }) => assert.match(message, "matches several sessions"),
    );
  }
});

test("says what a machine lacks", async (context) => {
  const host = hostWith(context, "a", "claudy 0.1.0 (build x)\n");
  program(context, "docker", "#!/bin/sh\necho 19.03.1\n");
  const found = await checkHost(host, context.env);
  assert.is(found.engine, "19.03.1");
  assert.is(found.program, host.program);
  assert.ok(Number(found.diskBytes) > 0);
  assert.equal(found.missing.length, 2);
  assert.match(found.missing.join(), "Docker 20.10 or later");
  assert.match(found.missing.join(), "The program is 0.1.0 there");
  program(context, "docker", "#!/bin/sh\nexit 1\n");
  const none = { ...host, program: "/nowhere/claudy" };
  const { missing, program: path } = await checkHost(none, context.env);
  assert.is(path, null);
  assert.match(missing.join(), "Missing: claudy");
  assert.match(missing.join(), "Missing: a Docker engine");
});

/** A repository, and what runs git in one. */
function repositoryIn({ env, ...context }: Context) {
  const app = context.project("app");
  const git = (directory: string, ...args: string[]) =>
    execFileSync("git", ["-C", directory, ...args], {
      env: {
        ...env,
        GIT_AUTHOR_NAME: "a",
        GIT_AUTHOR_EMAIL: "a@b",
        GIT_COMMITTER_NAME: "a",
        GIT_COMMITTER_EMAIL: "a@b",
      },
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    }).trim();
  const commit = (text: string) =>
    git(app, "commit", "--quiet", "--allow-empty", `--message=${text}`);
  git(app, "init", "--quiet", "--initial-branch=main");
  return { app, git, commit };
}

/** A host that answers with the path of a repository that is already there. */
async function hostOf(context: Context, format = "sha1") {
  const path = await hostRepository(context.instance, "far", {
    head: "main",
    format,
  });
  return { path, host: hostWith(context, "a", JSON.stringify({ path })) };
}

const refusal = async (promise: Promise<unknown>): Promise<string> =>
  await promise.then(
    () => assert.unreachable(),
    ({ message }) => message,
  ) as string;

test("a project's commits go there and come back", async (context) => {
  const { instance, env } = context;
  const { app, git, commit } = repositoryIn(context);
  const { host, path } = await hostOf(context);
  const send = () => sendProject(instance, host, app, env);
  assert.match(await refusal(send()), "its branch has no commit");
  commit("one");
  const part = join(app, "part");
  mkdirSync(part);
  assert.match(
    await refusal(sendProject(instance, host, part, env)),
    "a part of the repository",
  );
  // A hook of the user's is not for this.
  const hook = join(app, ".git/hooks/pre-push");
  writeFileSync(hook, "#!/bin/sh\nexit 1\n", { mode: 0o755 });
  assert.is(await send(), path);
  assert.is(projectOf(instance, host, path), app);
  assert.is(projectOf(instance, host, `${path}x`), undefined);
  assert.is(git(path, "rev-parse", "main"), git(app, "rev-parse", "main"));
  git(app, "checkout", "--quiet", "--detach");
  commit("two");
  await send();
  assert.is(
    git(path, "rev-parse", "detached-HEAD"),
    git(app, "rev-parse", "HEAD"),
  );

  const sent = { session: "s", project: app, repository: path };
  git(path, "update-ref", "refs/remotes/claudy/s/b", "detached-HEAD");
  git(path, "update-ref", "refs/remotes/claudy/other/b", "detached-HEAD");
  git(path, "update-ref", "refs/heads/evil", "detached-HEAD");
  const refs = git(app, "for-each-ref", "--format=%(refname)").split("\n");
  await fetchProject(host, sent, env);
  assert.equal(
    git(app, "for-each-ref", "--format=%(refname)").split("\n"),
    [...refs, "refs/remotes/claudy/s/b"],
  );
  assert.not(existsSync(join(app, ".git/FETCH_HEAD")));
});

test("branches that replace others, or are named like a tag, are sent", async (context) => {
  const { app, git, commit } = repositoryIn(context);
  const { host, path } = await hostOf(context);
  const send = () => sendProject(context.instance, host, app, context.env);
  commit("one");
  git(app, "branch", "feature");
  git(app, "tag", "main");
  await send();
  git(app, "branch", "--move", "feature", "feature/x");
  await send();
  const names = git(path, "for-each-ref", "--format=%(refname)", "refs/heads");
  assert.equal(names.split("\n"), ["refs/heads/feature/x", "refs/heads/main"]);
});

test("shallow repositories and other hashes are sent, partial clones refused", async (context) => {
  const { instance, env } = context;
  const { app, git, commit } = repositoryIn(context);
  const { host, path } = await hostOf(context);
  commit("one");
  commit("two");
  const shallow = join(context.root, "shallow");
  git(app, "clone", "--quiet", "--depth=1", `file://${app}`, shallow);
  await sendProject(instance, host, shallow, env);
  assert.is(git(path, "rev-parse", "main"), git(app, "rev-parse", "main"));
  git(app, "config", "extensions.partialClone", "origin");
  assert.match(
    await refusal(sendProject(instance, host, app, env)),
    "it is a partial clone",
  );
  const other = join(context.root, "sha256");
  git(app, "init", "--quiet", "--object-format=sha256", other);
  const ofOther = hostWith(
    context,
    "b",
    JSON.stringify({
      path: await hostRepository(instance, "b", {
        head: "main",
        format: "sha256",
      }),
    }),
  );
  git(other, "commit", "--quiet", "--allow-empty", "--message=one");
  await sendProject(instance, ofOther, other, env);
  assert.match(
    await refusal(sendProject(instance, host, other, env)),
    "git cannot exchange commits",
  );
});

test("variables of git name no other repository", async (context) => {
  const { app, git, commit } = repositoryIn(context);
  const { host, path } = await hostOf(context);
  commit("one");
  const other = join(context.root, "other");
  git(app, "clone", "--quiet", app, other);
  git(other, "commit", "--quiet", "--allow-empty", "--message=other");
  const env = { ...context.env, GIT_DIR: join(other, ".git") };
  await sendProject(context.instance, host, app, env);
  assert.is(git(path, "rev-parse", "main"), git(app, "rev-parse", "main"));
});

test("the repository of a project from another machine", async ({ instance }) => {
  const make = (id: string, head: string) =>
    hostRepository(instance, id, { head, format: "sha1" });
  const path = await make("app-1", "main");
  const head = () => readFileSync(join(path, "HEAD"), "utf8");
  assert.is(head(), "ref: refs/heads/main\n");
  assert.is(await make("app-1", "a/b"), path);
  assert.is(head(), "ref: refs/heads/a/b\n");
  const wrong = [["../x", "main"], ["a/b", "main"], ["-a", "main"]];
  const heads = ["../x", "-x", "a b"].map((head) => ["app-1", head]);
  for (const [id = "", branch = ""] of [...wrong, ...heads]) {
    assert.match(await refusal(make(id, branch)), /Not the name|Cannot create/);
  }
  assert.is(head(), "ref: refs/heads/a/b\n");
});

test("images are sent without layers that are there", async () => {
  const layers = ["a", "b", "c"].map((text) => ({
    id: `sha256:${createHash("sha256").update(text).digest("hex")}`,
    file: `${text}/layer.tar`,
    text: text.repeat(1e6),
  }));
  const [a, b, c] = layers as [Layer, Layer, Layer];
  const [, chainOfB = ""] = chainIds([a.id, b.id]);
  const image = (name: string, parts: Layer[]) => ({
    name: `${name}.json`,
    text: JSON.stringify({ rootfs: { diff_ids: parts.map(({ id }) => id) } }),
    entry: { Config: `${name}.json`, Layers: parts.map(({ file }) => file) },
  });
  /** What is left of an archive of images, for an engine with some chains. */
  const left = async (
    images: ReturnType<typeof image>[],
    chains: string[],
    links: [name: string, target: string][] = [],
  ) => {
    const list = JSON.stringify(images.map(({ entry }) => entry));
    const save = () => {
      const saved = pack();
      const linked = links.map(([name]) => name);
      for (const { file, text } of layers) {
        if (!linked.includes(file)) saved.entry({ name: file }, text);
      }
      for (const [name, linkname] of links) {
        saved.entry({ name, linkname, type: "symlink" });
      }
      for (const { name, text } of images) saved.entry({ name }, text);
      saved.entry({ name: "manifest.json" }, list);
      saved.finalize();
      return Promise.resolve(saved as unknown as Readable);
    };
    const names: string[] = [];
    const entries = extract();
    entries.on("entry", (header, body, next) => {
      names.push(header.name);
      body.on("end", next).resume();
    });
    await pipeline(await withoutLayers(save, new Set(chains)), entries);
    return names.filter((name) => name.endsWith(".tar")).sort().join(" ");
  };
  const both = [image("one", [a, b]), image("two", [a, b, c])];
  assert.is(await left(both, []), "a/layer.tar b/layer.tar c/layer.tar");
  assert.is(await left(both, [a.id]), "b/layer.tar c/layer.tar");
  assert.is(await left(both, [a.id, chainOfB]), "c/layer.tar");
  // On other layers, b is not the layer that is there.
  const other = [image("one", [a, b]), image("three", [c, b])];
  assert.is(await left(other, [a.id, chainOfB]), "b/layer.tar c/layer.tar");
  // Docker before 25 links to layers that images share.
  assert.is(
    await left([image("one", [a, b])], [a.id], [[b.file, "../a/layer.tar"]]),
    "a/layer.tar b/layer.tar c/layer.tar",
  );
});

interface Layer {
  id: string;
  file: string;
  text: string;
}

test.run();
