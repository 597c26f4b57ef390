import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  callerVariableNames,
  callerVariables,
  providerOf,
} from "../../lib/home/caller-variables.ts";

const test = suite<{ root: string }>("caller-variables");

test.before.each((context) => {
  context.root = mkdtempSync(join(tmpdir(), "hal9000-caller-"));
});
test.after.each(({ root }) => rmSync(root, { recursive: true }));

test("passes proxies in either case, and excludes the workers' own services", () => {
  const { values, left } = callerVariables({
    HTTPS_PROXY: "http://user:pass@proxy.example:3128",
    http_proxy: "proxy.example:3128",
    no_proxy: "intranet.example",
    UNRELATED: "x",
  });
  const none = "intranet.example,localhost,127.0.0.1";
  assert.equal(values, {
    HTTPS_PROXY: "http://user:pass@proxy.example:3128",
    http_proxy: "proxy.example:3128",
    NO_PROXY: none,
    no_proxy: none,
  });
  assert.equal(left, []);
  assert.equal(callerVariables({ NO_PROXY: "x" }).values, {});
});

test("reports a proxy on localhost, without its password", () => {
  for (
    const place of [
      "http://me:pass@localhost:3128",
      "127.0.0.1:1",
      "socks5://[::1]:9",
    ]
  ) {
    const { values, left } = callerVariables({ ALL_PROXY: place });
    assert.equal(values, {}, place);
    assert.equal(left, ["ALL_PROXY: workers have another localhost"], place);
  }
});

test("copies files with certificates, and reports those that cannot be read", ({ root }) => {
  const path = join(root, "ca.pem");
  writeFileSync(path, "certificate");
  mkdirSync(join(root, "directory"));
  const { values, files, left } = callerVariables({
    NODE_EXTRA_CA_CERTS: path,
    SSL_CERT_FILE: join(root, "directory"),
    CURL_CA_BUNDLE: join(root, "missing"),
  });
  assert.equal(values, {
    NODE_EXTRA_CA_CERTS: "/home/claude/.claude/.caller.NODE_EXTRA_CA_CERTS",
  });
  assert.equal(files, {
    ".caller.NODE_EXTRA_CA_CERTS": Buffer.from("certificate"),
  });
  assert.is(left.length, 2);
  assert.match(left[0] ?? "", /^SSL_CERT_FILE: a directory/);
  assert.match(left[1] ?? "", /^CURL_CA_BUNDLE: /);
});

test("names the variables that are passed or reported", () => {
  const env = { http_proxy: "p:1", ALL_PROXY: "localhost:1", HOME: "/" };
  assert.equal(callerVariableNames(env), ["ALL_PROXY", "http_proxy"]);
});

test("passes a cloud provider's variables only if Claude uses it", ({ root }) => {
  const aws = {
    AWS_REGION: "r",
    AWS_ACCESS_KEY_ID: "a",
    AWS_SECRET_ACCESS_KEY: "s",
  };
  assert.equal(callerVariables(aws).values, {});
  assert.equal(
    callerVariables({ ...aws, CLAUDE_CODE_USE_BEDROCK: "0" }).values,
    {},
  );
  const bedrock = { ...aws, CLAUDE_CODE_USE_BEDROCK: "1" };
  assert.equal(
    callerVariables({ ...bedrock, AWS_PAGER: "less" }).values,
    bedrock,
  );
  assert.is(providerOf(bedrock), "CLAUDE_CODE_USE_BEDROCK");
  assert.is(providerOf({}), undefined);
  const key = join(root, "key.json");
  writeFileSync(key, "{}");
  const vertex = callerVariables({
    CLAUDE_CODE_USE_VERTEX: "true",
    ANTHROPIC_VERTEX_PROJECT_ID: "p",
    VERTEX_REGION_CLAUDE_OPUS: "r",
    GOOGLE_APPLICATION_CREDENTIALS: key,
  });
  assert.equal(Object.keys(vertex.values).sort(), [
    "ANTHROPIC_VERTEX_PROJECT_ID",
    "CLAUDE_CODE_USE_VERTEX",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "VERTEX_REGION_CLAUDE_OPUS",
  ]);
  assert.equal(vertex.left, []);
});

test("reports credentials of a cloud provider that only the host has", () => {
  const { left } = callerVariables({
    CLAUDE_CODE_USE_BEDROCK: "1",
    AWS_PROFILE: "work",
    ANTHROPIC_BEDROCK_BASE_URL: "http://localhost:1",
  });
  assert.is(left.length, 2);
  assert.match(left[0] ?? "", /^ANTHROPIC_BEDROCK_BASE_URL: workers have/);
  assert.match(left[1] ?? "", /~\/\.aws: set one of AWS_ACCESS_KEY_ID/);
});

test.run();
