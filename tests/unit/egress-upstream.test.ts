// The host's own proxy, and what NO_PROXY means.

import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  hostNetwork,
  isBypassed,
  upstreamFor,
} from "../../lib/egress/upstream.ts";

const test = suite("egress-upstream");

test("NO_PROXY names hosts, domains, ports and networks", () => {
  const cases: [noProxy: string, host: string, port: number, is: boolean][] = [
    ["", "a.example", 443, false],
    ["*", "a.example", 443, true],
    ["a.example", "a.example", 443, true],
    ["a.example", "b.a.example", 443, true],
    ["a.example", "evila.example", 443, false],
    [".a.example", "b.a.example", 443, true],
    ["*.a.example", "b.a.example", 443, true],
    ["x, A.Example y", "a.example", 443, true],
    ["a.example:8443", "a.example", 443, false],
    ["a.example:8443", "a.example", 8443, true],
    ["10.0.0.0/8", "10.1.2.3", 443, true],
    ["10.0.0.0/8", "11.1.2.3", 443, false],
    ["10.0.0.0/99", "10.1.2.3", 443, false],
    ["fd00::/8", "fd00::1", 443, true],
    ["fd00::1", "fd00::1", 443, true],
    ["2.3", "10.1.2.3", 443, false],
  ];
  for (const [noProxy, host, port, is] of cases) {
    assert.is(isBypassed(noProxy, { host, port }), is, `${noProxy} ${host}`);
  }
});

test("the variables are read in either case, and told without their values", () => {
  const told: string[] = [];
  const read = (env: NodeJS.ProcessEnv) =>
    hostNetwork(env, (line) => told.push(line)).upstream;
  const found = read({
    https_proxy: "http://user:s3cret@proxy.example:3128",
    HTTPS_PROXY: "http://other.example",
    HTTP_PROXY: "proxy.example:80",
    NO_PROXY: ".corp.example",
  });
  assert.is(found.https, "http://user:s3cret@proxy.example:3128/");
  assert.is(found.http, "http://proxy.example/");
  assert.is(found.noProxy, ".corp.example");
  assert.equal(told, []);
  assert.is(
    read({ ALL_PROXY: "socks5://user:s3cret@proxy.example" }).https,
    null,
  );
  read({ HTTPS_PROXY: "http://user:s3cret@localhost:3128" });
  assert.is(told.length, 3);
  assert.match(
    told.join(),
    /ALL_PROXY is not used.*HTTPS_PROXY is on this machine/s,
  );
  assert.not(told.join().includes("s3cret"));
  const target = { host: "a.example", port: 443 };
  assert.is(upstreamFor(found, target, true)?.hostname, "proxy.example");
  assert.is(upstreamFor({ ...found, https: null }, target, true), undefined);
});

test.run();
