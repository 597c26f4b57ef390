import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { credentialFor, keepCredential } from "../../lib/home/credentials.ts";
import {
  listSecrets,
  removeSecret,
  setSecret,
} from "../../lib/home/named-secrets.ts";
import { refreshAt, withoutRefresh } from "../../lib/home/login.ts";
import { ownerOf } from "../../lib/std/owned.ts";
import { homePaths } from "../../lib/instance/paths.ts";

function instanceIn(root: string) {
  const home = homePaths(root);
  mkdirSync(home.login, { recursive: true });
  return { home, owner: ownerOf(root) };
}

test("credentialFor() prefers a cloud provider, then the stored key, then the caller's", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-credentials-"));
  const instance = instanceIn(root);
  const caller = { ANTHROPIC_API_KEY: "sk-ant-caller" };
  assert.is(credentialFor(instance, {}), undefined);
  keepCredential(instance, "token", "sk-ant-oat01-token\n");
  assert.is(credentialFor(instance, {}), "token");
  assert.is(credentialFor(instance, caller), "caller");
  const gateway = { ...caller, ANTHROPIC_AUTH_TOKEN: "t" };
  assert.is(credentialFor(instance, gateway), "gateway");
  keepCredential(instance, "key", "sk-ant-api03-key");
  assert.is(credentialFor(instance, gateway), "key");
  const cloud = { ...gateway, CLAUDE_CODE_USE_VERTEX: "1" };
  assert.is(credentialFor(instance, cloud), "provider");
  assert.is(statSync(instance.home.anthropicKey).mode & 0o777, 0o600);
  rmSync(root, { recursive: true });
});

test("keepCredential() refuses invalid text without repeating it", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-credentials-"));
  for (const text of ["", "short", "two words", "line\nline2345"]) {
    try {
      keepCredential(instanceIn(root), "key", text);
      assert.unreachable();
    } catch (error) {
      assert.is((error as Error).message, "Invalid API key");
    }
  }
  rmSync(root, { recursive: true });
});

test("setSecret() replaces a secret with the same name, from a file or variable", () => {
  const root = mkdtempSync(join(tmpdir(), "hal9000-credentials-"));
  const instance = instanceIn(root);
  setSecret(instance, { name: "A", variable: false }, "one");
  setSecret(instance, { name: "A", variable: true }, "two");
  assert.equal(listSecrets(instance), [{ name: "A", variable: true }]);
  assert.throws(
    () => setSecret(instance, { name: "PATH", variable: true }, "x"),
    /Cannot set \w+ from a secret/,
  );
  assert.throws(() => removeSecret(instance, "../x"), /Invalid secret name/);
  assert.ok(removeSecret(instance, "A"));
  assert.not.ok(removeSecret(instance, "A"));
  rmSync(root, { recursive: true });
});

test("refreshAt() is ten minutes before expiry, or half of a short lifetime", () => {
  assert.is(refreshAt(8 * 3_600_000), 8 * 3_600_000 - 600_000);
  assert.is(refreshAt(60_000, 60_000), 30_000);
});

test("withoutRefresh() keeps what the CLI needs, without the refresh token", () => {
  const text = JSON.stringify(withoutRefresh({
    claudeAiOauth: {
      accessToken: "access",
      refreshToken: "planted-refresh",
      expiresAt: 1,
      subscriptionType: "max",
    },
  }));
  assert.not.match(text, "planted-refresh");
  assert.match(text, '"accessToken":"access"');
  assert.match(text, '"subscriptionType":"max"');
});

test.run();
