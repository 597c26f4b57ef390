// What the egress policy decides, without a network.

import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { notPublic } from "../../lib/egress/address.ts";
import {
  judgeAddress,
  judgeHost,
  type Policy,
  policySchema,
  type PolicyText,
  presetOf,
} from "../../lib/egress/policy.ts";
import { balancedHosts, presetAllows } from "../../lib/egress/presets.ts";
import { parseHost, parseRule, ruleText } from "../../lib/egress/rules.ts";
import { connectTarget, urlTarget } from "../../lib/egress/target.ts";

const test = suite("egress-judge");

function policyOf(change: Partial<PolicyText> = {}): Policy {
  return v.parse(policySchema, {
    setting: "closed",
    instance: { rules: [] },
    projects: {},
    sessions: {},
    workers: {},
    own: { host: [], parent: [] },
    upstream: { http: null, https: null, noProxy: "", ca: null },
    ...change,
  });
}

const nobody = { session: null, project: null };

test("a host has one form", () => {
  const forms: [text: string, host: string | undefined][] = [
    ["EXAMPLE.com:443", "example.com"],
    ["example.com.:443", "example.com"],
    ["a_b.example:443", "a_b.example"],
    ["xn--bcher-kva.example:443", "xn--bcher-kva.example"],
    ["0x7f.1:443", "127.0.0.1"],
    ["2130706433:443", "127.0.0.1"],
    ["0177.0.0.1:443", "127.0.0.1"],
    ["127.1:443", "127.0.0.1"],
    ["127.0.0.1.:443", "127.0.0.1"],
    ["[::FFFF:127.0.0.1]:443", "::ffff:7f00:1"],
    ["[2001:DB8:0:0::1]:443", "2001:db8::1"],
    ["[::1%25lo]:443", undefined],
    ["[fe80::1%eth0]:443", undefined],
    ["[::1:443", undefined],
    ["::1:443", undefined],
    ["example.com..:443", undefined],
    ["a..example:443", undefined],
    [".example:443", undefined],
    ["-a.example:443", undefined],
    ["a-.example:443", undefined],
    [`${"a".repeat(64)}.example:443`, undefined],
    [`${"a.".repeat(127)}example:443`, undefined],
    ["bücher.example:443", undefined],
    ["%31.example:443", undefined],
    ["user@example.com:443", undefined],
    ["user:secret@example.com:443", undefined],
    ["example.com/:443", undefined],
    ["example.com\\@evil.example:443", undefined],
    ["exa mple.com:443", undefined],
    ["exa\0mple.com:443", undefined],
    ["*.example.com:443", undefined],
    ["1.2.3.4.5:443", undefined],
    ["4294967296:443", undefined],
    ["0x.example.0x1:443", undefined],
    [":443", undefined],
    ["", undefined],
  ];
  for (const [text, host] of forms) {
    assert.is(connectTarget(text)?.host, host, text);
  }
});

test("a port is from 1 to 65535, and is not left out", () => {
  const forms: [text: string, port: number | undefined][] = [
    ["a.example:1", 1],
    ["a.example:0443", 443],
    ["a.example:65535", 65_535],
    ["a.example", undefined],
    ["a.example:", undefined],
    ["a.example:0", undefined],
    ["a.example:00000", undefined],
    ["a.example:65536", undefined],
    ["a.example:-1", undefined],
    ["a.example:+443", undefined],
    ["a.example:4e2", undefined],
    ["a.example:0x1bb", undefined],
    ["a.example: 443", undefined],
    ["a.example:443:80", undefined],
    ["a.example:٤٤٣", undefined],
  ];
  for (const [text, port] of forms) {
    assert.is(connectTarget(text)?.port, port, text);
  }
});

test("a URL has a host and a path, and nothing that hides the host", () => {
  const urls: [url: string, host?: string, port?: number, path?: string][] = [
    ["http://a.example", "a.example", 80, "/"],
    ["http://a.example/x?y", "a.example", 80, "/x?y"],
    ["HTTP://A.example:8080?y", "a.example", 8080, "/?y"],
    ["http://[::1]/", "::1", 80, "/"],
    ["http://[::1]:81/", "::1", 81, "/"],
    ["http://0x7f000001/", "127.0.0.1", 80, "/"],
    ["https://a.example/"],
    ["ftp://a.example/"],
    ["http:/a.example/"],
    ["http:///a.example/"],
    ["//a.example/"],
    ["/check?host=a"],
    ["*"],
    ["http://user@a.example/"],
    ["http://user:secret@a.example/"],
    ["http://a.example:/"],
    ["http://a.example:0/"],
    ["http://a.example\\@b.example/"],
    ["http://a.example#@b.example/"],
    ["http://a.example/#x"],
    ["http://a.example/ x"],
  ];
  for (const [url, host, port, path] of urls) {
    const found = urlTarget(url);
    assert.equal(
      [found?.target.host, found?.target.port, found?.path],
      [host, port, path],
      url,
    );
  }
});

test("only public addresses are public, in every form", () => {
  const addresses: [address: string, what: string | undefined][] = [
    ["93.184.216.34", undefined],
    ["2606:2800:220:1::1", undefined],
    ["172.15.255.255", undefined],
    ["172.32.0.0", undefined],
    ["64:ff9b::5db8:d822", undefined],
    ["::ffff:93.184.216.34", undefined],
    ["0.0.0.0", "an unspecified address"],
    ["0.1.2.3", "an unspecified address"],
    ["10.255.0.1", "a private address"],
    ["100.64.0.1", "an address of a provider's network"],
    ["100.127.255.255", "an address of a provider's network"],
    ["127.0.0.1", "a loopback address"],
    ["127.255.255.254", "a loopback address"],
    ["169.254.169.254", "a link-local address"],
    ["172.16.0.1", "a private address"],
    ["172.31.255.255", "a private address"],
    ["192.168.1.1", "a private address"],
    ["192.0.0.191", "a reserved address"],
    ["192.0.0.192", "an address at which clouds serve credentials"],
    ["168.63.129.16", "an address at which clouds serve credentials"],
    ["::ffff:168.63.129.16", "an address at which clouds serve credentials"],
    ["100.100.100.200", "an address at which clouds serve credentials"],
    ["fd20:ce:0::254", "an address at which clouds serve credentials"],
    ["198.18.0.1", "a reserved address"],
    ["224.0.0.1", "a multicast address"],
    ["239.255.255.250", "a multicast address"],
    ["255.255.255.255", "a reserved address"],
    ["::", "an unspecified address"],
    ["::1", "a loopback address"],
    ["fe80::1", "a link-local address"],
    ["febf::1", "a link-local address"],
    ["fec0::1", "a reserved address"],
    ["fc00::1", "a private address"],
    ["fd00:ec2::254", "an address at which clouds serve credentials"],
    ["fd00:ec2::253", "a private address"],
    ["ff02::1", "a multicast address"],
    ["::127.0.0.1", "a reserved address"],
    ["::ffff:127.0.0.1", "a loopback address"],
    ["::ffff:7f00:1", "a loopback address"],
    ["::ffff:169.254.169.254", "a link-local address"],
    ["0:0:0:0:0:ffff:0a00:1", "a private address"],
    ["::ffff:0:10.0.0.1", "a private address"],
    ["64:ff9b::10.0.0.1", "a private address"],
    ["64:ff9b::a9fe:a9fe", "a link-local address"],
    ["64:ff9b:1::10.0.0.1", "a reserved address"],
    ["2002:7f00:1::", "a loopback address"],
    ["2002:a00:1::5", "a private address"],
    ["2001:0:a00:1::", "a reserved address"],
    ["2001:db8::1", "a reserved address"],
    ["fe80::1%eth0", "not an address"],
    ["example.com", "not an address"],
  ];
  for (const [address, what] of addresses) {
    assert.is(notPublic(address)?.what, what, address);
  }
});

test("addresses of the host are not public, in any form", () => {
  const own = { host: ["93.184.216.34", "2606:2800:0:0:0:0:0:1"], parent: [] };
  for (
    const address of [
      "93.184.216.34",
      "::ffff:93.184.216.34",
      "64:ff9b::93.184.216.34",
      "2606:2800::1",
    ]
  ) {
    assert.is(notPublic(address, own)?.what, "an address of the host", address);
  }
  assert.is(notPublic("93.184.216.35", own), undefined);
});

test("rules are read and written in one form", () => {
  const rules: [text: string, normal: string | undefined][] = [
    ["allow Example.COM.", "allow example.com"],
    ["deny *.Example.com:22", "deny *.example.com:22"],
    ["allow bücher.example", "allow xn--bcher-kva.example"],
    ["allow *", "allow *"],
    ["deny *:25", "deny *:25"],
    ["allow 0x0a.1", "allow 10.0.0.1"],
    ["allow [FD00::1]:443", "allow [fd00::1]:443"],
    ["allow fd00::1", "allow [fd00::1]"],
    ["allow", undefined],
    ["allow ", undefined],
    ["allow a.example b.example", undefined],
    ["permit a.example", undefined],
    ["allow *example.com", undefined],
    ["allow a.*.example", undefined],
    ["allow *.*.example", undefined],
    ["allow *.10.0.0.1", undefined],
    ["allow a.example:0", undefined],
    ["allow a.example:", undefined],
    ["allow a.example:http", undefined],
    ["allow https://a.example", undefined],
    ["allow a.example/path", undefined],
    ["allow user@a.example", undefined],
    ["allow bü@cher.example", undefined],
    ["allow a.example\nallow b.example", undefined],
  ];
  for (const [text, normal] of rules) {
    let found: string | undefined;
    try {
      found = ruleText(parseRule(text));
    } catch {
      found = undefined;
    }
    assert.is(found, normal, text);
  }
});

test("a rule is about its host, names below a wildcard, and its ports", () => {
  const cases: [rule: string, target: string, allowed: boolean][] = [
    ["allow a.example", "a.example:443", true],
    ["allow a.example", "a.example:80", true],
    ["allow a.example", "a.example:22", false],
    ["allow a.example:22", "a.example:22", true],
    ["allow a.example:22", "a.example:443", false],
    ["allow a.example", "b.a.example:443", false],
    ["allow a.example", "a.example.evil.example:443", false],
    ["allow *.a.example", "b.a.example:443", true],
    ["allow *.a.example", "c.b.a.example:443", true],
    ["allow *.a.example", "a.example:443", false],
    ["allow *.a.example", "evila.example:443", false],
    ["allow *.a.example:22", "b.a.example:443", false],
    ["allow *", "b.example:443", true],
    ["allow *", "b.example:22", false],
    ["allow 10.0.0.1", "10.0.0.1:443", true],
    ["allow 10.0.0.1", "10.0.0.2:443", false],
  ];
  for (const [rule, text, allowed] of cases) {
    const target = connectTarget(text) ?? assert.unreachable(text);
    const policy = policyOf({ instance: { rules: [rule] } });
    const verdict = judgeHost(policy, nobody, target!);
    assert.is(verdict.allowed, allowed, `${rule}: ${text}`);
  }
});

const at = (text: string) => connectTarget(text)!;

test("a deny without a port is about every port", () => {
  const policy = policyOf({
    setting: "open",
    instance: { rules: ["deny a.example", "deny *:25"] },
  });
  assert.not(judgeHost(policy, nobody, at("a.example:22")).allowed);
  assert.not(judgeHost(policy, nobody, at("a.example:443")).allowed);
  assert.not(judgeHost(policy, nobody, at("b.example:25")).allowed);
  assert.ok(judgeHost(policy, nobody, at("b.example:22")).allowed);
});

test("a session's rules come before those of its project, the instance and the preset", () => {
  const asking = { session: "s", project: "/p" };
  const target = at("a.example:443");
  const of = (
    rules: { session?: string[]; project?: string[]; instance?: string[] },
  ) =>
    policyOf({
      instance: { rules: rules.instance ?? [] },
      projects: { "/p": { rules: rules.project ?? [] } },
      sessions: { s: { rules: rules.session ?? [] } },
    });
  const allow = ["allow a.example"];
  const deny = ["deny a.example"];
  const verdict = (rules: Parameters<typeof of>[0]) => {
    const { allowed, from } = judgeHost(of(rules), asking, target);
    return [allowed, from];
  };
  assert.equal(verdict({}), [false, "EGRESS_PRESET"]);
  assert.equal(verdict({ instance: allow }), [true, "the instance"]);
  assert.equal(verdict({ instance: allow, project: deny }), [
    false,
    "project /p",
  ]);
  assert.equal(verdict({ project: deny, session: allow }), [
    true,
    'session "s"',
  ]);
  assert.equal(verdict({ session: deny, instance: allow }), [
    false,
    'session "s"',
  ]);
  // At the same level, "deny" counts, however the rules are ordered.
  assert.equal(verdict({ project: ["allow *.example", ...deny, ...allow] }), [
    false,
    "project /p",
  ]);
  assert.equal(verdict({ project: [...allow, "deny *.example"] }), [
    false,
    "project /p",
  ]);
  // Rules of others do not count.
  const others = policyOf({
    projects: { "/other": { rules: allow } },
    sessions: { other: { rules: allow } },
  });
  assert.not(judgeHost(others, asking, target).allowed);
  assert.not(
    judgeHost(others, { session: "toString", project: null }, target).allowed,
  );
});

test("the preset of a session comes before those of its project and the instance", () => {
  const asking = { session: "s", project: "/p" };
  const policy = (
    session?: "open" | "closed",
    project?: "open",
    instance?: "open",
  ) =>
    policyOf({
      instance: { preset: instance, rules: [] },
      projects: { "/p": { preset: project, rules: [] } },
      sessions: { s: { preset: session, rules: [] } },
    });
  const found = (one: Policy) => Object.values(presetOf(one, asking));
  assert.equal(found(policy()), ["closed", "EGRESS_PRESET"]);
  assert.equal(found(policy(undefined, undefined, "open")), [
    "open",
    "the instance",
  ]);
  assert.equal(found(policy(undefined, "open")), ["open", "project /p"]);
  assert.equal(found(policy("closed", "open")), ["closed", 'session "s"']);
});

test("rules that cannot be read refuse everything", () => {
  const asking = { session: "s", project: "/p" };
  const policies: Partial<PolicyText>[] = [
    { setting: null },
    { instance: null },
    { projects: { "/p": null } },
    { sessions: { s: null } },
  ];
  for (const change of policies) {
    const allowing = { instance: { rules: ["allow a.example"] }, ...change };
    const { allowed, sentence } = judgeHost(
      policyOf(allowing),
      asking,
      at("a.example:443"),
    );
    assert.not(allowed, JSON.stringify(change));
    assert.match(sentence, /cannot be read/);
  }
});

test("an allowed name that resolves to a private address needs a rule for the address", () => {
  const target = at("a.example:443");
  const judge = (address: string, ...rules: string[]) => {
    const policy = policyOf({
      instance: { rules: ["allow *", ...rules] },
      own: { host: ["93.184.216.99"], parent: ["172.17.0.5"] },
    });
    return judgeAddress(policy, nobody, target, address)?.sentence;
  };
  assert.is(judge("93.184.216.34"), undefined);
  assert.is(
    judge("10.0.0.1"),
    "Egress to a.example:443 is refused: it resolves to 10.0.0.1, a private address; to allow it, run on the host: claudy egress allow 10.0.0.1:443",
  );
  assert.is(judge("10.0.0.1", "allow 10.0.0.1:443"), undefined);
  assert.is(judge("10.0.0.1", "allow 10.0.0.1"), undefined);
  assert.ok(judge("10.0.0.1", "allow 10.0.0.1:22"));
  assert.ok(judge("10.0.0.1", "allow 10.0.0.2"));
  assert.is(judge("fd00:0:0::1", "allow fd00::1"), undefined);
  assert.match(judge("93.184.216.99") ?? "", /an address of the host/);
  assert.is(judge("93.184.216.99", "allow 93.184.216.99"), undefined);
  assert.match(
    judge("172.17.0.5", "allow 172.17.0.5") ?? "",
    /an address of the parent, which no rule can allow/,
  );
  assert.match(
    judge("93.184.216.34", "deny 93.184.216.34") ?? "",
    /which the rule "deny 93.184.216.34" of the instance denies/,
  );
});

test("no rule allows loopback, link-local and multicast addresses", () => {
  for (
    const address of [
      "127.0.0.1",
      "169.254.169.254",
      "168.63.129.16",
      "224.0.0.1",
      "0.0.0.0",
    ]
  ) {
    const policy = policyOf({
      setting: "open",
      instance: { rules: ["allow *", `allow ${address}`] },
    });
    const found = judgeAddress(policy, nobody, at("a.example:80"), address);
    assert.match(found?.sentence ?? "", /no rule can allow/, address);
    const mapped = judgeAddress(
      policy,
      nobody,
      at("a.example:80"),
      `::ffff:${address}`,
    );
    assert.match(mapped?.sentence ?? "", /no rule can allow/, address);
  }
});

test("a refusal names the host, the port, the rule and the command", () => {
  const sentence = (text: string, rules: string[] = [], asking = {}) =>
    judgeHost(
      policyOf({
        sessions: { s: { rules } },
        setting: "balanced",
      }),
      { ...nobody, session: "s", ...asking },
      at(text),
    ).sentence;
  assert.is(
    sentence("evil.example:443"),
    "Egress to evil.example:443 is refused: no rule allows it, and the preset is balanced; to allow it, run on the host: claudy egress allow evil.example",
  );
  assert.is(
    sentence("evil.example:8443"),
    "Egress to evil.example:8443 is refused: no rule allows it, and the preset is balanced; to allow it, run on the host: claudy egress allow evil.example:8443",
  );
  assert.is(
    sentence("a.evil.example:443", ["deny *.evil.example"]),
    'Egress to a.evil.example:443 is refused by the rule "deny *.evil.example" of session "s"; to remove it, run on the host: claudy egress deny --remove *.evil.example --session s',
  );
});

test("balanced allows what projects are built from, each with a reason", () => {
  for (
    const place of [
      "api.anthropic.com:443",
      "github.com:443",
      "github.com:22",
      "raw.githubusercontent.com:443",
      "gitlab.com:22",
      "registry.npmjs.org:443",
      "pypi.org:443",
      "files.pythonhosted.org:443",
      "static.crates.io:443",
      "proxy.golang.org:443",
      "repo.maven.apache.org:443",
      "deb.debian.org:80",
    ]
  ) assert.ok(presetAllows("balanced", at(place)), place);
  for (
    const place of [
      "example.com:443",
      "evil-github.com:443",
      "github.com.evil.example:443",
      "github.com:25",
      "93.184.216.34:443",
      "gist.github.com:443",
    ]
  ) assert.not(presetAllows("balanced", at(place)), place);
  for (const [reason, ...hosts] of balancedHosts) {
    assert.match(reason, /^[\w ,.]+: ./);
    for (const host of hosts) assert.ok(parseHost(host), host);
  }
  assert.ok(presetAllows("open", at("example.com:25")));
  assert.not(presetAllows("closed", at("api.anthropic.com:443")));
});

test.run();
