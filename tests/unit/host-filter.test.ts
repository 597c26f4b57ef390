// The packet filter that keeps workers from the host.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { filterRules, networkOf } from "../../lib/net/host-filter.ts";

const route =
  `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
`;
const zeros = "0".repeat(32);
const ipv6Route = [
  ["fd990000000000000000000000000000", "40", zeros, "00", zeros, "eth0"],
  [zeros, "00", zeros, "00", "fd990000000000000000000000000001", "eth0"],
  ["fe800000000000000000000000000000", "40", zeros, "00", zeros, "eth0"],
  ["00000000000000000000000000000001", "80", zeros, "00", zeros, "lo"],
  ["ff000000000000000000000000000000", "08", zeros, "00", zeros, "eth0"],
].map(([to, bits, from, fromBits, via, device]) =>
  `${to} ${bits} ${from} ${fromBits} ${via} 00000100 1 0 00000001     ${device}\n`
).join("");

const read = (change: Partial<Parameters<typeof networkOf>[0]> = {}) =>
  networkOf({ route, ipv6Route, resolvConf: "", ...change });

test("networkOf() finds gateways and networks of interfaces", () => {
  assert.equal(read().near, [
    "172.17.0.1",
    "172.17.0.0/16",
    "fd99:0000:0000:0000:0000:0000:0000:0000/64",
    "fd99:0000:0000:0000:0000:0000:0000:0001",
  ]);
});

test("networkOf() takes no default route for a network", () => {
  const slirp = route.replace("010011AC\t0003", "00000000\t0001");
  assert.equal(read({ route: slirp, ipv6Route: "" }).near, ["172.17.0.0/16"]);
});

test("networkOf() reads name servers, except on loopback", () => {
  const resolvConf =
    "# nameserver 9.9.9.9\nnameserver 172.17.0.1\nnameserver 127.0.0.11\nnameserver fd99::53\nnameserver x;y\n";
  assert.equal(read({ resolvConf }).nameservers, ["172.17.0.1", "fd99::53"]);
});

const rules = filterRules({
  near: ["172.17.0.0/16", "fd99::/64"],
  nameservers: ["172.17.0.1"],
});

test("filterRules() refuses everything to near networks but answers by TCP", () => {
  for (const network of ["ip daddr 172.17.0.0/16", "ip6 daddr fd99::/64"]) {
    assert.ok(
      rules.includes(`${network} tcp flags & (syn | ack) == syn reject`),
    );
    assert.ok(rules.includes(`${network} meta l4proto != tcp reject`));
  }
});

test("filterRules() refuses link-local and metadata addresses", () => {
  assert.match(rules, /ip daddr \{ 169\.254\.0\.0\/16, .*\} reject/);
  assert.match(rules, /ip6 daddr \{ fe80::\/10, .*fd00:ec2::254.*\} reject/);
});

test("filterRules() lets name servers be asked on the bridge, before it is refused", () => {
  const asks =
    "ip daddr 172.17.0.1 meta l4proto { tcp, udp } th dport 53 accept";
  assert.ok(rules.includes(asks));
  assert.ok(rules.indexOf(asks) < rules.indexOf("reject"));
});

test.run();
