// Secrets for a host: what sessions get of them, and what the egress proxy gets.

import { X509Certificate } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { compilePolicy } from "../../lib/egress/feed.ts";
import { dropGrants, readHostSecrets } from "../../lib/egress/host-secrets.ts";
import { Leaves } from "../../lib/egress/leaves.ts";
import { policySchema, secretsOf } from "../../lib/egress/policy.ts";
import {
  removeSecret,
  setHostSecret,
  setSecret,
  writeSecrets,
} from "../../lib/home/named-secrets.ts";
import { layOutCredentials } from "../../lib/home/credentials.ts";
import { readAuthorities } from "../../lib/relay/authority.ts";
import { ensureAuthority } from "../../lib/relay/certificates.ts";
import type { CallerVariables } from "../../lib/home/caller-variables.ts";
import { writeRecord } from "../../lib/instance/record.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  claudeHome: string;
  /** Starts Claude, or attaches to it; returns its variables. */
  lay: (
    options?: Partial<{ isolated: boolean; claudeRuns: boolean }>,
    files?: CallerVariables["files"],
  ) => Record<string, string>;
  file: (name: string) => string;
  /** What the proxy gets. */
  policy: () => Promise<v.InferOutput<typeof policySchema>>;
}

const test = suite<Context>("host-secrets");
const container = "c".repeat(64);
const target = { host: "api.example", port: 443 };
const sent = {
  host: "api.example",
  header: "Authorization",
  format: "Bearer %s",
  user: null,
};

test.before.each((context) => {
  Object.assign(context, fakeInstance());
  const { instance } = context;
  context.claudeHome = join(instance.home.claude, "s");
  mkdirSync(context.claudeHome, { recursive: true });
  context.lay = (options = {}, files = {}) =>
    writeSecrets(instance, context.claudeHome, instance.owner, {
      passed: { values: {}, files, left: [] },
      isolated: true,
      claudeRuns: false,
      ...options,
    });
  context.file = (name) => {
    const path = join(context.claudeHome, name);
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  };
  const leaves = new Leaves();
  context.policy = async () => {
    const made = await leaves.make(readHostSecrets(instance));
    const env = { HOME: "/nowhere" };
    return v.parse(policySchema, compilePolicy(instance, env, made));
  };
  writeRecord(
    instance,
    {
      version: 1,
      worker: "w",
      container,
      session: "s",
      project: { path: "/p", uid: 1, gid: 1 },
      image: "repo:worker",
      born: "cold",
      home: relative(instance.home.home, context.claudeHome),
      ephemeral: false,
      secrets: null,
      memoryBytes: 1,
      oomKilledAt: null,
      createdAt: new Date().toISOString(),
    },
  );
});
test.after.each(({ end }) => end());

const sentBy = async ({ policy }: Context) => {
  const now = await policy();
  return secretsOf(now, now.workers[container], target);
};

test("an isolated session gets a placeholder, a shared one the value", async (context) => {
  const { instance, lay, file, policy } = context;
  await setHostSecret(instance, { name: "A", variable: true, sent }, "real-a");
  await setHostSecret(instance, {
    name: "B",
    variable: false,
    sent: { ...sent, host: "git.example", user: "me", format: "Basic %s" },
  }, "real-b");
  setSecret(instance, { name: "PLAIN", variable: true }, "plain");
  // Before the session is started, nothing of it is in the proxy.
  assert.equal((await policy()).secrets, {});
  const variables = lay();
  const placeholder = file(".secret-env.A");
  assert.match(placeholder, /^hal9000-placeholder-[0-9a-f]{32}$/);
  assert.is(variables["A"], placeholder);
  assert.is.not(file(".secret.B"), placeholder);
  assert.match(file(".secret.B"), /^hal9000-placeholder-/);
  assert.is(variables["PLAIN"], "plain");
  const { secrets, workers } = await policy();
  assert.equal(workers[container]?.secrets, ["A", "B"]);
  assert.is(secrets["A"]?.value, "Bearer real-a");
  assert.is(secrets["B"]?.value, "Basic bWU6cmVhbC1i");
  const shared = lay({ isolated: false });
  assert.is(shared["A"], "real-a");
  assert.is(file(".secret.B"), "real-b");
  assert.equal((await policy()).secrets, {});
  assert.not.ok("SSL_CERT_FILE" in shared);
  assert.is(file(".caller.secret-hosts.pem"), "");
});

test("an isolated session trusts an authority for that host alone", async (context) => {
  const { instance, lay, file, policy } = context;
  assert.equal(lay(), {});
  await setHostSecret(instance, { name: "A", variable: true, sent }, "real-a");
  const callers = new TextEncoder().encode("callers");
  const { A: _, ...variables } = lay({}, { ".caller.CURL_CA_BUNDLE": callers });
  const home = "/home/claude/.claude/.caller.";
  const bundle = "/tmp/hal9000-certificates.pem";
  assert.equal(variables, {
    NODE_EXTRA_CA_CERTS: `${home}NODE_EXTRA_CA_CERTS`,
    SSL_CERT_FILE: bundle,
    CURL_CA_BUNDLE: `${home}CURL_CA_BUNDLE`,
    GIT_SSL_CAINFO: bundle,
    REQUESTS_CA_BUNDLE: bundle,
  });
  assert.is(file(".caller-env.SSL_CERT_FILE"), bundle);
  const pem = file(".caller.secret-hosts.pem");
  assert.is(file(".caller.NODE_EXTRA_CA_CERTS"), pem);
  assert.is(file(".caller.CURL_CA_BUNDLE"), `callers${pem}`);
  const authority = new X509Certificate(pem);
  const text = readFileSync(
    join(instance.home.namedSecrets, "A.host"),
    "utf8",
  );
  assert.match(text, "PRIVATE KEY");
  assert.not.match(pem, "PRIVATE KEY");
  // DNS:api.example permitted, all addresses excluded.
  const constraint = Buffer.from("a00f300d820b6170692e6578616d706c65a1", "hex");
  assert.ok(authority.raw.includes(constraint));
  const cert = (await policy()).secrets["A"]?.leaf.cert ?? "";
  const certificate = new X509Certificate(cert);
  assert.ok(certificate.verify(authority.publicKey));
  assert.is(certificate.subjectAltName, "DNS:api.example");
  assert.not.match(
    JSON.stringify(await policy()),
    JSON.parse(text).authority.key,
  );
});

test("a session that uses the relay trusts both authorities", async (context) => {
  const { instance, claudeHome, file } = context;
  await setHostSecret(instance, { name: "A", variable: true, sent }, "real-a");
  await ensureAuthority(instance);
  const { variables } = layOutCredentials(
    instance,
    claudeHome,
    instance.owner,
    {},
    { isolated: true, relaying: { env: {}, isolated: true } },
  );
  const [relay] = readAuthorities(instance.home);
  const trusted = file(".caller.NODE_EXTRA_CA_CERTS");
  assert.match(trusted, relay?.cert ?? "none");
  assert.match(trusted, file(".caller.secret-hosts.pem").trim());
  // What other programs trust is no matter of the relay.
  assert.not.match(file(".caller.secret-hosts.pem"), relay?.cert ?? "");
  assert.match(variables["A"] ?? "", /^hal9000-placeholder-/);
});

test("running sessions get a new value at once, and lose what is removed", async (context) => {
  const { instance, lay, file } = context;
  const set = async (value: string, use = sent) =>
    await setHostSecret(
      instance,
      { name: "A", variable: true, sent: use },
      value,
    );
  await set("one");
  lay();
  const attach = () => lay({ claudeRuns: true });
  await set("two");
  const [secret] = await sentBy(context);
  assert.is(secret?.value, "Bearer two");
  assert.match(attach()["A"] ?? "", /^hal9000-placeholder-/);
  // The running Claude trusts no authority for another host.
  await set("three", { ...sent, host: "other.example" });
  assert.equal(await sentBy(context), []);
  assert.equal(attach(), {});
  assert.is(file(".secret-env.A"), "");
  assert.equal((await context.policy()).secrets, {});
  lay();
  assert.is((await context.policy()).secrets["A"]?.value, "Bearer three");
  assert.ok(removeSecret(instance, "A"));
  assert.equal((await context.policy()).secrets, {});
  // Again, with another authority.
  await set("four", { ...sent, host: "other.example" });
  assert.equal((await context.policy()).secrets, {});
});

test("a secret with a host replaces one without, and the other way", async (context) => {
  const { instance, lay } = context;
  setSecret(instance, { name: "A", variable: true }, "plain");
  await setHostSecret(instance, { name: "A", variable: false, sent }, "real");
  assert.not.ok("A" in lay());
  setSecret(instance, { name: "A", variable: true }, "plain");
  assert.is(lay()["A"], "plain");
  assert.equal(readHostSecrets(instance), []);
});

test("grants are private, and removed with their sessions", async (context) => {
  const { instance, claudeHome, lay } = context;
  await setHostSecret(instance, { name: "A", variable: true, sent }, "real");
  lay();
  const { hostGrants } = instance.home;
  assert.is(statSync(hostGrants).mode & 0o777, 0o700);
  dropGrants(instance);
  assert.is((await sentBy(context)).length, 1);
  rmSync(claudeHome, { recursive: true });
  dropGrants(instance);
  assert.is((await sentBy(context)).length, 0);
});

test.run();
