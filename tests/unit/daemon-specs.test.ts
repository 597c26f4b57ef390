import { suite } from "uvu";
import * as assert from "uvu/assert";
import { netSpec, parentSpec, parsePublished } from "../../lib/daemon/specs.ts";

const test = suite("parent-spec");

const request = {
  prefix: "hal9000",
  image: "repo:parent",
  hostHome: "/home/dave/.hal9000",
  socket: "/run/user/1000/docker.sock",
  roots: ["/home/dave", "/srv"],
  volumes: { chromadb: "c", plugins: "p", memorybank: "m" },
  claudeConfig: "/home/dave/.hal9000/config/claude",
  memoryBytes: 1024,
  cpus: 2,
  env: { CHROMADB_PORT: "9000" },
};

const instance = { prefix: "x", hostHome: "/home/dave/.hal9000" };

const net = (change: Partial<Parameters<typeof netSpec>[1]> = {}) =>
  netSpec(instance, {
    image: "r:parent",
    published: [],
    held: [8000, 3001],
    allowHost: false,
    ...change,
  });

test("netSpec() is root only to set the filter of the host", () => {
  const filtering = net();
  assert.is(filtering.User, "0:65430");
  assert.equal(filtering.HostConfig?.CapAdd, ["NET_ADMIN", "SETUID", "SETGID"]);
  const allowing = net({ allowHost: true });
  assert.is(allowing.User, "65430:65430");
  assert.is(allowing.HostConfig?.CapAdd, undefined);
});

test("netSpec() can do nothing else than hold ports", () => {
  const { Cmd, HostConfig, Labels } = net();
  assert.equal(Cmd, ["hold", "8000", "3001"]);
  assert.equal(HostConfig?.CapDrop, ["ALL"]);
  assert.is(HostConfig?.ReadonlyRootfs, true);
  assert.equal(HostConfig?.Mounts, undefined);
  assert.equal(Labels, {
    "hal9000.instance": "x",
    "hal9000.role": "net",
    "hal9000.home": "/home/dave/.hal9000",
  });
});

test("netSpec() publishes on loopback unless an address is given", () => {
  const ports = ["3000:80", "0.0.0.0:8080:81"].map(parsePublished);
  const spec = net({ published: ports });
  assert.equal(spec.HostConfig?.PortBindings, {
    "80/tcp": [{ HostIp: "127.0.0.1", HostPort: "3000" }],
    "81/tcp": [{ HostIp: "0.0.0.0", HostPort: "8080" }],
  });
});

for (
  const text of ["", "3000", "a:b", "0:80", "80:70000", "host:1:2", "1:2:3"]
) {
  test(`parsePublished() refuses "${text}"`, () => {
    assert.throws(() => parsePublished(text), /--publish must be/);
  });
}

test("parentSpec() has its own network and limits", () => {
  const { HostConfig } = parentSpec(request);
  assert.is(HostConfig?.NetworkMode, "bridge");
  assert.is(HostConfig?.Memory, 1024);
  assert.is(HostConfig?.MemorySwap, 1024);
  assert.is(HostConfig?.NanoCpus, 2e9);
});

test("parentSpec() mounts the project roots read-only below /host", () => {
  const roots = parentSpec(request).HostConfig?.Mounts?.filter(
    ({ Target }) => Target.startsWith("/host/"),
  );
  assert.equal(roots, [
    {
      Type: "bind",
      Source: "/home/dave",
      Target: "/host/home/dave",
      ReadOnly: true,
    },
    { Type: "bind", Source: "/srv", Target: "/host/srv", ReadOnly: true },
  ]);
});

test("parentSpec() prevents Docker from changing the owner of volumes", () => {
  const volumes = parentSpec(request).HostConfig?.Mounts?.filter(
    ({ Type }) => Type === "volume",
  );
  assert.is(volumes?.length, 3);
  for (const volume of volumes ?? []) {
    assert.is(volume.VolumeOptions?.NoCopy, true);
  }
});

test("parentSpec() passes settings to the parent", () => {
  assert.ok(parentSpec(request).Env?.includes("CHROMADB_PORT=9000"));
  assert.ok(parentSpec(request).Env?.includes("HAL9000_PREFIX=hal9000"));
});

test.run();
