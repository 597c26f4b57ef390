import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { inherit, readHostConfig } from "../../lib/home/inherit.ts";
import {
  takeMcpServers,
  takeSettings,
} from "../../lib/home/inherited-settings.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";

const options = {
  claudeHome: "/home/me/.claude",
  userHome: "/home/me",
  inheritHooks: false,
};

test("takeSettings() skips settings that run or refer to programs of the host", () => {
  const { value, left } = takeSettings({
    model: "opus",
    apiKeyHelper: "/home/me/bin/key",
    statusLine: { type: "command", command: "~/.claude/line.sh" },
    hooks: { Stop: [] },
    env: { EDITOR: "vi", ANTHROPIC_API_KEY: "sk-ant-planted" },
    permissions: {
      allow: ["Bash(ls:*)", "Read(/home/me/docs/**)"],
      additionalDirectories: ["/home/me/other", "/home/me/.claude/notes"],
    },
  }, options);
  assert.equal(value, {
    model: "opus",
    env: { EDITOR: "vi" },
    permissions: {
      allow: ["Bash(ls:*)"],
      additionalDirectories: ["/home/claude/.claude/notes"],
    },
  });
  assert.equal(left.map((line) => line.split(":")[0]), [
    "apiKeyHelper",
    "statusLine",
    "hooks",
    "env.ANTHROPIC_API_KEY",
    "permissions.allow.1",
    "permissions.additionalDirectories.0",
  ]);
  assert.not.match(left.join(), "sk-ant-planted");
});

for (
  const name of [
    "apiKeyHelper",
    "awsAuthRefresh",
    "awsCredentialExport",
    "gcpAuthRefresh",
    "otelHeadersHelper",
    "proxyAuthHelper",
    "statusLine",
    "fileSuggestion",
  ]
) {
  test(`takeSettings() skips ${name}, a command of the host`, () => {
    const { value, left } = takeSettings({ [name]: "/bin/x" }, options);
    assert.equal(value, {});
    assert.match(left.join(), name);
  });
}

test("takeSettings() takes hooks on request", () => {
  const hooks = { Stop: [{ hooks: [{ type: "command", command: "true" }] }] };
  const taken = takeSettings({ hooks }, { ...options, inheritHooks: true });
  assert.equal(taken, { value: { hooks }, left: [] });
});

test("takeMcpServers() takes remote servers", () => {
  const { value, left } = takeMcpServers({
    remote: { type: "http", url: "https://mcp.example.com/mcp" },
    local: { type: "http", url: "http://localhost:3001/mcp" },
    program: { command: "npx", args: ["x"], env: { TOKEN: "planted" } },
  });
  assert.equal(Object.keys(value), ["remote"]);
  assert.is(left.length, 2);
  assert.not.match(left.join(), "planted");
});

function fixture() {
  const root = mkdtempSync(join(tmpdir(), "hal9000-inherit-"));
  const claudeHome = join(root, "me", ".claude");
  mkdirSync(join(claudeHome, "agents"), { recursive: true });
  const put = (name: string, text: string) =>
    writeFileSync(join(claudeHome, name), text);
  put("CLAUDE.md", "be brief\n");
  put("settings.json", '{"model":"opus"}');
  put("agents/reviewer.md", "review");
  put("history.jsonl", "of other projects");
  const home = homePaths(join(root, "home"));
  mkdirSync(home.claude, { recursive: true });
  mkdirSync(join(home.sessions, "inherited"), { recursive: true });
  const told: string[] = [];
  const read = () =>
    readHostConfig(
      { claudeHome, inheritHooks: false },
      (line) => told.push(line),
    );
  const instance = { home, owner: ownerOf(root) };
  const update = () => inherit(instance, "s", instance.owner, read());
  const at = (name: string) => join(home.claude, "s", name);
  return { root, put, update, at, told, claudeHome };
}

test("inherit() copies the user's configuration without history", () => {
  const { root, update, at } = fixture();
  assert.equal(update().written.sort(), [
    "CLAUDE.md",
    "agents/reviewer.md",
    "settings.json",
  ]);
  assert.is(readFileSync(at("CLAUDE.md"), "utf8"), "be brief\n");
  assert.not.ok(existsSync(at("history.jsonl")));
  assert.equal(update(), { written: [], removed: [], kept: [] });
  rmSync(root, { recursive: true });
});

test("inherit() updates files, except those that the session has changed", () => {
  const { root, put, update, at, claudeHome } = fixture();
  update();
  writeFileSync(at("CLAUDE.md"), "the session's own\n");
  writeFileSync(at("agents/mine.md"), "mine");
  put("CLAUDE.md", "be long\n");
  put("agents/reviewer.md", "review more");
  put("agents/mine.md", "the host's");
  rmSync(join(claudeHome, "settings.json"));
  assert.equal(update(), {
    written: ["agents/reviewer.md"],
    removed: ["settings.json"],
    kept: ["CLAUDE.md", "agents/mine.md"],
  });
  assert.is(readFileSync(at("CLAUDE.md"), "utf8"), "the session's own\n");
  assert.is(readFileSync(at("agents/mine.md"), "utf8"), "mine");
  // A file that the session removed is not restored.
  rmSync(at("agents/reviewer.md"));
  put("agents/reviewer.md", "review again");
  assert.equal(update().written, []);
  assert.not.ok(existsSync(at("agents/reviewer.md")));
  rmSync(root, { recursive: true });
});

test("inherit() does not follow links of the session", () => {
  const { root, put, update, at } = fixture();
  update();
  const elsewhere = join(root, "elsewhere");
  mkdirSync(elsewhere);
  rmSync(at("agents"), { recursive: true });
  symlinkSync(elsewhere, at("agents"));
  put("agents/reviewer.md", "review more");
  put("agents/new.md", "new");
  assert.ok(update().kept.includes("agents/new.md"));
  assert.not.ok(existsSync(join(elsewhere, "new.md")));
  rmSync(root, { recursive: true });
});

test("warns about a broken configuration once, and inherits the rest", () => {
  const { root, put, update, told } = fixture();
  put("settings.json", "{");
  assert.ok(update().written.includes("CLAUDE.md"));
  assert.is(told.length, 1);
  assert.match(told[0] ?? "", "settings.json");
  rmSync(root, { recursive: true });
});

test("a missing configuration causes no message", () => {
  const told: string[] = [];
  const config = readHostConfig(
    { claudeHome: "/nowhere/.claude", inheritHooks: false },
    (line) => told.push(line),
  );
  assert.is(config.files.size, 0);
  assert.equal(told, []);
});

test.run();
