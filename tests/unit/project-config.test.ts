import { execFileSync } from "node:child_process";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  layOutSettings,
  startSettings,
} from "../../lib/home/claude-settings.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  approve,
  isApproved,
  judgeProjectConfig,
  shortened,
} from "../../lib/project/config-approval.ts";
import {
  isForbiddenVariable,
  readProjectConfig,
} from "../../lib/project/project-config.ts";

const test = suite("project-config");
const host = { mount: "", roots: undefined };
let project: string;

test.before.each(() => {
  project = mkdtempSync(join(tmpdir(), "hal9000-config-"));
});
test.after.each(() => rmSync(project, { recursive: true }));

function lay(name: string, text: string): void {
  mkdirSync(dirname(join(project, name)), { recursive: true });
  writeFileSync(join(project, name), text);
}

const read = () => readProjectConfig(project, host);

test("a project with only memory files needs no approval", () => {
  lay("CLAUDE.md", "hooks: read me");
  lay(".claude/settings.json", " { } \n");
  lay(".claude/CLAUDE.md", "Read me too.");
  lay(".claude/worktrees/a/.mcp.json", "{");
  assert.is(read(), undefined);
});

const hook = '{"type":"command","command":"/bin/echo","args":["-c","evil"]}';
const active: [string, string, string][] = [
  [
    ".claude/settings.json",
    `{"hooks":{"SessionStart":[{"hooks":[${hook}]}]}}`,
    `.claude/settings.json: hook SessionStart {"hooks":[${hook}]}`,
  ],
  [
    ".claude/settings.json",
    '\ufeff{"env":{"A":"1"}}',
    '.claude/settings.json: env {"A":"1"}',
  ],
  [
    ".claude/settings.local.json",
    '{"permissions":{"allow":["Bash(*)"]}}',
    '.claude/settings.local.json: permissions {"allow":["Bash(*)"]}',
  ],
  [
    ".mcp.json",
    '{"mcpServers":{"x":{"url":"https://x","headersHelper":"evil"}}}',
    '.mcp.json: server x {"url":"https://x","headersHelper":"evil"}',
  ],
  [
    ".claude/scheduled_tasks.json",
    '{"tasks":[{"cron":"* * * * *","prompt":"evil"}]}',
    '.claude/scheduled_tasks.json: {"tasks":[{"cron":"* * * * *","prompt":"evil"}]}',
  ],
  [".claude/hooks/b.sh", "rm -rf x", ".claude/hooks/b.sh"],
  [".claude/agents/a.md", "---\nname: a\n---\nhooks:\n", ".claude/agents/a.md"],
  [
    ".claude/agents/a.md",
    '---\nname: a\n"ho\\u006fks":\n  SessionStart: x\n---\nText.',
    '.claude/agents/a.md: "name: a \\"ho\\\\u006fks\\": SessionStart: x"',
  ],
  [
    ".claude/agents/a.md",
    "---\nname: a\rhooks:\r  SessionStart: x\n---\n",
    '.claude/agents/a.md: "name: a hooks: SessionStart: x"',
  ],
  [
    ".claude/skills/s/.claude-plugin/plugin.json",
    '{"name":"s","hooks":"./h.txt","mcpServers":["./m.txt"]}',
    '.claude/skills/s/.claude-plugin/plugin.json: hooks "./h.txt"',
  ],
  [
    ".claude/skills/s/data/more.json",
    '{"q":{"command":"evil"}}',
    '.claude/skills/s/data/more.json: {"q":{"command":"evil"}}',
  ],
  [
    ".claude/skills/s/data/odd.json",
    `{"deep":${"[".repeat(1001)}${"]".repeat(1001)},"hooks":{}}`,
    ".claude/skills/s/data/odd.json: not valid JSON; its content is not shown",
  ],
  [
    ".claude/settings.json",
    `{"statusLine":{"command":"true${" x".repeat(300)}; \\\\rm"}}`,
    `.claude/settings.json: statusLine {"command":"true${
      " x".repeat(300)
    }; \\\\rm"}`,
  ],
  [".claude/skills/s/SKILL.md", "Text.", ".claude/skills/s: 1 file"],
  [
    ".claude/skills/s/hooks/hooks.json",
    `{"hooks":{"SessionStart":[{"hooks":[${hook}]}]}}`,
    `.claude/skills/s/hooks/hooks.json: hook SessionStart {"hooks":[${hook}]}`,
  ],
  [
    ".claude/skills/s/.mcp.json",
    '{"x":{"command":"evil"}}',
    '.claude/skills/s/.mcp.json: server x {"command":"evil"}',
  ],
  [".claude/whatever/comes/next", "x", ".claude/whatever/comes: 1 file"],
];

for (const [name, text, line] of active) {
  test(`${name} with ${text.slice(0, 24)} needs approval`, () => {
    lay(name, text);
    assert.is(read()?.summary[0], line);
    const before = read()?.digest;
    lay(name, text + " ");
    assert.is.not(read()?.digest, before);
  });
}

test("shows what runs first and completely", () => {
  const command = `true${" ".repeat(5000)}; evil`;
  const settings: Record<string, unknown> = {};
  for (let at = 0; at < 60; at++) settings[`dull${at}`] = "x".repeat(9000);
  settings["hooks"] = { Stop: [{ hooks: [{ type: "command", command }] }] };
  lay(".claude/settings.json", JSON.stringify(settings));
  const summary = shortened(read() ?? { summary: [], running: 0 });
  assert.match(summary[0] ?? "", 'hook Stop {"hooks"');
  assert.match(summary[0] ?? "", "true ; evil");
  assert.ok(summary.every((line) => line.length < 600));
  assert.match(summary.at(-1) ?? "", "... and 21 more");
});

test("shows everything that runs, regardless of length", () => {
  const hooks = [];
  for (let at = 0; at < 60; at++) {
    hooks.push({ hooks: [{ command: `c${at}` }] });
  }
  lay(
    ".claude/settings.json",
    JSON.stringify({ hooks: { Stop: hooks }, a: 1 }),
  );
  const shown = shortened(read() ?? { summary: [], running: 0 });
  assert.is(shown.length, 61);
  assert.match(shown[59] ?? "", '"c59"');
  assert.match(shown[60] ?? "", "... and 1 more");
});

test("unreviewable configuration has a fault and is never approved", async () => {
  const faults: [() => void, string][] = [
    [() => {
      mkdirSync(join(project, ".claude"));
      symlinkSync("/etc/passwd", join(project, ".claude/settings.json"));
    }, ".claude/settings.json is a link"],
    [() => symlinkSync("/etc", join(project, ".claude")), ".claude is a link"],
    [() => lay(".mcp.json", "{"), ".mcp.json is not valid JSON"],
    [
      () => lay(".claude/skills/s/hooks/hooks.json", "{"),
      ".claude/skills/s/hooks/hooks.json is not valid JSON",
    ],
    [() => {
      lay(".claude/agents/a", "x");
      // A name that is not valid text.
      execFileSync("bash", ["-c", "echo x >$'\\xff'"], {
        cwd: join(project, ".claude/agents"),
      });
    }, "cannot be opened"],
    [() => {
      const hooks = { Stop: [{ hooks: [{ command: "x".repeat(200_000) }] }] };
      lay(".claude/settings.json", JSON.stringify({ hooks }));
    }, "too long to be reviewed"],
    [
      () => lay(".claude/settings.json", "[".repeat(2000)),
      ".claude/settings.json is not valid JSON",
    ],
    [() => {
      lay(".mcp.json", "");
      truncateSync(join(project, ".mcp.json"), 3e9);
    }, ".mcp.json is too large"],
    [() => {
      for (let at = 0; at < 2001; at++) lay(`.claude/hooks/${at}`, "x");
    }, "too many files"],
    [() => lay(`.claude/${"d/".repeat(10)}x`, "x"), "is nested too deeply"],
    [() => {
      for (let at = 0; at < 10; at++) {
        lay(`.claude/hooks/${at}`, "x".repeat(2_000_000));
      }
    }, "its files are too large"],
  ];
  for (const [make, fault] of faults) {
    rmSync(project, { recursive: true });
    mkdirSync(project);
    make();
    assert.match(read()?.fault ?? "", fault);
    const instance = {
      home: homePaths(project),
      owner: ownerOf(project),
      host,
    };
    const told: string[] = [];
    const verdict = await judgeProjectConfig(
      instance,
      project,
      () => Promise.resolve(true),
      (line) => told.push(line),
    );
    assert.not.ok(verdict.approved);
    assert.match(told.join(), fault);
  }
});

const filter = '[filter "x"]\n\tclean = ./evil\n';
const plain = "[core]\n\tbare = false\n";
const repositories: [string, () => void, string | undefined][] = [
  ["plain", () => lay(".git/config", plain), undefined],
  [
    "with a filter",
    () => lay(".git/config", plain + filter + "[user]\n\tname = a\n"),
    '.git/config: "[filter \\"x\\"] clean = ./evil"',
  ],
  [
    "with all spellings of headers",
    () => lay(".git/config", "[core]a=b[FILTER.x] clean=evil\n"),
    '.git/config: "[core]a=b[FILTER.x] clean=evil"',
  ],
  [
    "in a worktree's own config",
    () => lay(".git/config.worktree", filter),
    '.git/config.worktree: "[filter \\"x\\"] clean = ./evil"',
  ],
  [
    "in another directory of the project",
    () => {
      lay(".git", "gitdir: /workspace/a/b\n");
      lay("a/b/commondir", "../common\n");
      lay("a/common/config", filter);
    },
    'a/common/config: "[filter \\"x\\"] clean = ./evil"',
  ],
  [
    "with a value on two lines",
    () => lay(".git/config", '[filter "x"]\nclean = "cat; \\\n[x] ; ./evil"\n'),
    '.git/config: "[filter \\"x\\"] clean = \\"cat; \\\\ [x] ; ./evil\\""',
  ],
  [
    "of git-lfs",
    () =>
      lay(
        ".git/config",
        plain + '[filter "lfs"]\n\tclean = git-lfs clean -- %f\n' +
          "\tprocess = git-lfs filter-process\n\trequired = true\n",
      ),
    undefined,
  ],
  [
    "with a program beside git-lfs",
    () =>
      lay(".git/config", '[filter "lfs"]\n\tclean = git-lfs clean -- %f; x\n'),
    '.git/config: "[filter \\"lfs\\"] clean = git-lfs clean -- %f; x"',
  ],
  [
    "with a million empty lines",
    () => lay(".git/config", "\n".repeat(1_000_000) + filter),
    '.git/config: "[filter \\"x\\"] clean = ./evil"',
  ],
  [
    "below a name that is a blank",
    () => {
      lay(".git/commondir", " ");
      lay(".git/ /config", filter);
    },
    '.git/ /config: "[filter \\"x\\"] clean = ./evil"',
  ],
  [
    "below a non-ASCII name",
    () => {
      lay(".git", "gitdir: \u00e9vil");
      lay("\u00e9vil/config", filter);
    },
    '\u00e9vil/config: "[filter \\"x\\"] clean = ./evil"',
  ],
  [
    "in a project that is itself a git directory",
    () => {
      lay("HEAD", "ref: refs/heads/main\n");
      lay("objects/x", "");
      lay("refs/x", "");
      lay("config", filter);
    },
    'config: "[filter \\"x\\"] clean = ./evil"',
  ],
];

for (const [what, make, line] of repositories) {
  test(`git programs of a repository ${what}`, () => {
    make();
    assert.is(read()?.summary[0], line);
    assert.is(read()?.gitPrograms, line === undefined ? undefined : true);
  });
}

test("reports unusual git paths as unreviewable", () => {
  const ways: [string, () => void][] = [
    [
      ".git is a link",
      () => symlinkSync("/workspace/real", join(project, ".git")),
    ],
    [".git has an unusual path", () => {
      mkdirSync(join(project, "a/b"), { recursive: true });
      symlinkSync("a/b", join(project, "d"));
      lay(".git", "gitdir: d/../repo\n");
    }],
    [".git has an unusual path", () => lay(".git", "gitdir: evil\0/x\n")],
    [".git has an unusual path", () => lay(".git", "gitdir: evil\rx\n")],
    [
      ".git has an unusual path",
      () => lay(".git", "gitdir: /proc/self/root/workspace/evil\n"),
    ],
    [
      ".git has an unusual path",
      () => lay(".git", "gitdir: ../proc/self/cwd/evil\n"),
    ],
    [
      ".git/commondir has an unusual path",
      () => lay(".git/commondir", "c\0/../nothing"),
    ],
    ["d is a link or not a directory", () => {
      symlinkSync("a", join(project, "d"));
      lay(".git", "gitdir: d/repo\n");
    }],
    [
      ".git/commondir is too large",
      () => lay(".git/commondir", "../".repeat(300_000)),
    ],
    [
      ".git/config includes other files",
      () => lay(".git/config", "[Include]path=x\n"),
    ],
    [
      ".git/config is too large",
      () => lay(".git/config", " ".repeat(1024 * 1024 + 1)),
    ],
  ];
  for (const [fault, make] of ways) {
    rmSync(project, { recursive: true });
    mkdirSync(project);
    make();
    assert.is(read()?.fault, fault);
    assert.is(read()?.gitPrograms, true);
  }
});

test("finds git programs in the repository of a worktree on the host", () => {
  const repository = mkdtempSync(join(tmpdir(), "hal9000-repository-"));
  try {
    mkdirSync(join(repository, "worktrees/w"), { recursive: true });
    writeFileSync(join(repository, "worktrees/w/commondir"), "../..\n");
    writeFileSync(join(repository, "config"), filter);
    lay(".git", `gitdir: ${repository}/worktrees/w\n`);
    assert.is(
      read()?.summary[0],
      `${repository}/config: "[filter \\"x\\"] clean = ./evil"`,
    );
  } finally {
    rmSync(repository, { recursive: true });
  }
});

test("does not start Claude while git would run unapproved programs", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-home-"));
  mkdirSync(join(root, "sessions", "approved"), { recursive: true });
  const instance = { home: homePaths(root), owner: ownerOf(root), host };
  const judge = (ask: () => boolean) =>
    judgeProjectConfig(
      instance,
      project,
      () => Promise.resolve(ask()),
      () => {},
    );
  const refused = async (ask: () => boolean, why: string) => {
    try {
      await judge(ask);
      assert.unreachable();
    } catch (error) {
      assert.match(String(error), why);
    }
  };
  try {
    lay(".git/config", filter);
    await refused(() => false, "they are not approved");
    // Replaced while the user is being asked.
    const exchange = () => {
      lay(".git/config", filter.replace("evil", "worse"));
      return true;
    };
    await refused(exchange, "has changed since it was shown");
    assert.ok((await judge(() => true)).approved);
    assert.ok((await judge(() => false)).approved);
    lay(".git/config", plain + filter.replace("evil", "worse"));
    assert.ok((await judge(() => false)).approved);
    // Configuration that cannot be approved.
    symlinkSync("/etc/passwd", join(project, ".mcp.json"));
    await refused(() => false, ".mcp.json is a link");
    rmSync(join(project, ".git/config"));
    symlinkSync("../other", join(project, ".git/config"));
    await refused(() => false, ".git/config is a link");
    // Accepted for this start only.
    assert.not.ok((await judge(() => true)).approved);
    await refused(() => false, ".git/config is a link");
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("an approval applies to one project and its exact content", async () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-home-"));
  const home = homePaths(root);
  mkdirSync(join(root, "sessions", "approved"), { recursive: true });
  const instance = { home, owner: ownerOf(root), host };
  try {
    lay(".mcp.json", '{"mcpServers":{"x":{"command":"a"}}}');
    const config = read();
    assert.ok(config);
    assert.not.ok(isApproved(instance, project, config));
    approve(instance, project, config);
    assert.ok(isApproved(instance, project, config));
    assert.not.ok(isApproved(instance, `${project}2`, config));
    const judge = (yes: boolean) =>
      judgeProjectConfig(
        instance,
        project,
        () => Promise.resolve(yes),
        () => {},
      );
    assert.ok((await judge(false)).approved);
    lay(".mcp.json", '{"mcpServers":{"x":{"command":"b"}}}');
    assert.not.ok((await judge(false)).approved);
    assert.ok((await judge(true)).approved);
    assert.ok((await judge(false)).approved);
    writeFileSync(home.approval(project), "{");
    assert.not.ok((await judge(false)).approved);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("forbids variables for endpoints and credentials, and allows others", () => {
  const forbidden = [
    "ANTHROPIC_BASE_URL",
    "anthropic_auth_token",
    "ANTHROPIC_UNIX_SOCKET",
    "AWS_ENDPOINT_URL",
    "https_proxy",
    "NODE_OPTIONS",
    "CLAUDE_CODE_USE_BEDROCK",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "CLAUDE_CODE_DISABLE_SUBSTITUTION_RM_PROMPT",
    "CLAUDE_CODE_DISABLE_PERMISSION_PROMPT_NOTIFY_HOOKS",
  ];
  const harmless = [
    "FOO",
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "CLAUDE_CODE_MAX_OUTPUT_TOKENS",
    "NODE_ENV",
    "PROXY_COUNT",
  ];
  assert.equal(forbidden.filter((name) => !isForbiddenVariable(name)), []);
  assert.equal(harmless.filter(isForbiddenVariable), []);
  lay(
    ".claude/settings.json",
    JSON.stringify({ env: { A: "1", NODE_OPTIONS: "x" }, apiKeyHelper: "x" }),
  );
  assert.equal(read()?.forbidden, ["NODE_OPTIONS", "apiKeyHelper"]);
});

const signIn = { apiKeyHelper: undefined, env: {}, variables: {}, left: [] };
const start = { signIn, env: {}, approved: true, forbidden: [] };

for (
  const name of [
    "apiKeyHelper",
    "awsAuthRefresh",
    "awsCredentialExport",
    "gcpAuthRefresh",
    "otelHeadersHelper",
    "proxyAuthHelper",
  ]
) {
  test(`a project's ${name} has no effect on credentials`, () => {
    const signIn = {
      apiKeyHelper: undefined,
      env: {},
      variables: {},
      left: [],
    };
    const request = { signIn, env: {}, approved: true, forbidden: [] };
    assert.is(startSettings(request, { env: {} })[name], "");
  });
}

test("startSettings() overrides forbidden settings with the session's values", () => {
  const settings = startSettings({
    ...start,
    signIn: { ...signIn, variables: { ANTHROPIC_AUTH_TOKEN: "secret" } },
    env: { ANTHROPIC_BASE_URL: "http://127.0.0.1:9", HTTPS_PROXY: "http://p" },
    forbidden: ["AWS_ENDPOINT_URL", "apiKeyHelper"],
  }, { env: { HTTPS_PROXY: "http://own" }, awsAuthRefresh: "own" });
  const env = settings["env"] as Record<string, string>;
  assert.is(env["ANTHROPIC_BASE_URL"], "http://127.0.0.1:9");
  assert.is(env["ANTHROPIC_AUTH_TOKEN"], "secret");
  assert.is(env["HTTPS_PROXY"], "http://own");
  assert.is(env["AWS_ENDPOINT_URL"], "");
  assert.is(env["CLAUDE_CONFIG_DIR"], "/home/claude/.claude");
  assert.not.ok("FOO" in env);
  assert.is(settings["apiKeyHelper"], "");
  assert.is(settings["awsAuthRefresh"], "own");
  assert.is(settings["enableAllProjectMcpServers"], true);
  assert.is(env["http_proxy"], "");
  assert.not.ok("CLAUDE_CODE_DISABLE_CRON" in env);
  const off = startSettings({ ...start, approved: false }, { env: {} });
  assert.is(off["enableAllProjectMcpServers"], false);
  assert.is(
    (off["env"] as Record<string, string>)["CLAUDE_CODE_DISABLE_CRON"],
    "1",
  );
});

test("layOutSettings() includes project settings only if approved, and merges the user's", () => {
  const lay = (approved: boolean, given: string[]) =>
    layOutSettings(project, ownerOf(project), {
      ...start,
      approved,
      arguments: given,
    });
  const ours = ["--settings", "/home/claude/.claude/hal9000-settings.json"];
  assert.equal(lay(true, ["--model", "x"]), ["--model", "x", ...ours]);
  assert.equal(lay(false, []), ["--setting-sources", "user", ...ours]);
  const written = () => JSON.parse(readText("hal9000-settings.json"));
  for (const given of [["--settings", '{"a":1}'], ['--settings={"a":1}']]) {
    assert.equal(lay(true, ["x", ...given, "y"]), ["x", "y", ...ours]);
    assert.is(written().a, 1);
    assert.is(written().env.ANTHROPIC_BASE_URL, "");
  }
  assert.throws(() => lay(true, ["--settings", "/workspace/x.json"]), /JSON/);
});

function readText(name: string): string {
  return readFileSync(join(project, name), "utf8");
}

test.run();
