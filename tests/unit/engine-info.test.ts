// What an engine can do, and how containers are fitted to it.

import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import {
  checkLimits,
  describeEngine,
  engineInfo,
  engineSocket,
  fitLimits,
  fitSpec,
  type Info,
  missingLimits,
  userInContainers,
} from "../../lib/docker/engine-info.ts";
import type { Failure } from "../../lib/std/errors.ts";

const test = suite("engine info");

const plain: Info = { NCPU: 2, MemTotal: 2 ** 34 };
const rootless = {
  ...plain,
  SecurityOptions: ["name=seccomp", "name=rootless"],
};

/** An engine with this info, and how often it was asked. */
function engine(info: Info | Error): { docker: Docker; asked: string[] } {
  const asked: string[] = [];
  const docker = {
    info: () => {
      asked.push("info");
      return info instanceof Error
        ? Promise.reject(info)
        : Promise.resolve(info);
    },
  } as unknown as Docker;
  return { docker, asked };
}

const failureOf = (promise: Promise<unknown>): Promise<Failure> =>
  promise.then(() => assert.unreachable() as never, (error) => error);

test("describeEngine() reads the security options and the limits", () => {
  const seccomp = "name=seccomp,profile=default";
  const of = (change: object) => describeEngine({ ...plain, ...change });
  assert.is(
    of({ SecurityOptions: [seccomp, "name=userns"] }).remapsUsers,
    true,
  );
  assert.is(of({ SecurityOptions: [seccomp, "name=rootless"] }).rootless, true);
  for (const SecurityOptions of [undefined, null, [], [seccomp]]) {
    const { rootless, remapsUsers } = of({ SecurityOptions });
    assert.equal({ rootless, remapsUsers }, {
      rootless: false,
      remapsUsers: false,
    });
  }
  // Podman says nothing of some limits, and has them.
  assert.is(missingLimits(of({})), undefined);
  assert.is(missingLimits(of({ CpuCfsQuota: false })), "CPUs");
  const none = { MemoryLimit: false, CpuCfsQuota: false, PidsLimit: false };
  assert.is(missingLimits(of(none)), "memory, CPUs and processes");
  // Rootless Podman shows limits of the older cgroups, which it cannot set.
  const older = { ...rootless, MemoryLimit: true, CgroupVersion: "1" };
  assert.is(missingLimits(of(older)), "memory, CPUs and processes");
  assert.is(of(older).cgroups, undefined);
  // Docker 20.10 leaves out the older version.
  assert.is(of({}).cgroups, "1");
  assert.is(of({ SecurityOptions: ["name=rootless"] }).cgroups, undefined);
  assert.is(missingLimits(of({ ...older, CgroupVersion: "2" })), undefined);
});

test("engineInfo() asks an engine once, and again if it did not answer", async () => {
  const { docker, asked } = engine(plain);
  await Promise.all([engineInfo(docker), engineInfo(docker)]);
  assert.is((await engineInfo(docker)).cpus, 2);
  assert.equal(asked, ["info"]);
  const silent = engine(new Error("no answer"));
  for (const _ of [1, 2]) await failureOf(engineInfo(silent.docker));
  assert.equal(silent.asked, ["info", "info"]);
});

test("fitSpec() mounts read-only paths if the engine ignores them", () => {
  const bind = (Source: string, Target: string, ReadOnly = false) => ({
    Type: "bind" as const,
    Source,
    Target,
    ReadOnly,
  });
  const Mounts = [
    bind("/me/app", "/workspace"),
    bind("/me/app/.git", "/workspace/.git"),
  ];
  const paths = ["/proc/sys", "/workspace/.git/config", "/workspace/.envrc"];
  const spec = { HostConfig: { Mounts, ReadonlyPaths: paths } };
  const fitted = (ID: string) =>
    fitSpec(spec, describeEngine({ ...plain, ContainerdCommit: { ID } }))
      .HostConfig;
  assert.equal(fitted("1.6"), spec.HostConfig);
  assert.equal(fitted(""), {
    Mounts: [
      ...Mounts,
      bind("/me/app/.git/config", "/workspace/.git/config", true),
      bind("/me/app/.envrc", "/workspace/.envrc", true),
    ],
  });
});

test("fitSpec() leaves out limits that the engine does not have", () => {
  const limits = {
    CpuShares: 4,
    Memory: 1,
    MemorySwap: 1,
    NanoCpus: 2,
    PidsLimit: 3,
  };
  const spec = { Image: "x", HostConfig: { Init: true, ...limits } };
  const fitted = (change: object) =>
    fitSpec(spec, describeEngine({ ...plain, ...change }));
  assert.equal(fitted({}), spec);
  assert.equal(fitted({ CpuCfsQuota: false }).HostConfig, {
    Init: true,
    Memory: 1,
    MemorySwap: 1,
    PidsLimit: 3,
  });
  const none = { MemoryLimit: false, CpuCfsQuota: false, PidsLimit: false };
  assert.equal(fitted(none).HostConfig, { Init: true });
  assert.equal(fitted({ SecurityOptions: ["name=userns"] }).HostConfig, {
    Init: true,
    UsernsMode: "host",
    ...limits,
  });
});

test("userInContainers() maps the user of a rootless engine to root", async () => {
  const own = { uid: process.getuid?.() || 1000, gid: 77 };
  const asRoot = (info: Info, user = own) =>
    userInContainers(engine(info).docker, user, '"/app"');
  assert.equal(await asRoot(plain), own);
  if (process.getuid?.() !== 0) {
    assert.equal(await asRoot(rootless), { uid: 0, gid: 0 });
  }
  // In the parent.
  assert.equal(await asRoot(rootless, { uid: 0, gid: 5 }), { uid: 0, gid: 5 });
  const failure = await failureOf(asRoot(rootless, { uid: 4321, gid: 77 }));
  assert.is(failure.kind, "unsafe");
  assert.match(failure.message, '"/app" belongs to uid 4321');
});

test("fitLimits() requests no more CPUs and memory than the engine has", async () => {
  const small = { memoryBytes: 2 ** 20, cpus: 0.5, pids: 7 };
  const large = { ...small, memoryBytes: 2 ** 50, cpus: 1000 };
  const told: string[] = [];
  const fit = (info: Info, limits: typeof small) =>
    fitLimits(engine(info).docker, limits, (line) => told.push(line));
  assert.equal(await fit(plain, small), small);
  const huge = { NCPU: 1000, MemTotal: 2 ** 50 };
  assert.equal(await fit(huge, large), large);
  assert.equal(told, []);
  assert.equal(await fit(plain, large), {
    memoryBytes: 2 ** 34,
    cpus: 2,
    pids: 7,
  });
  assert.equal(told.splice(0), [
    "The engine has 2 CPUs: using 2 instead of 1000",
    "The engine has 16 GiB of memory: using that instead of 1024 TiB",
  ]);
  const noCpus = { ...plain, CpuCfsQuota: false };
  assert.equal(await fit(noCpus, large), {
    memoryBytes: 2 ** 34,
    cpus: 0,
    pids: 7,
  });
  assert.is(told.splice(0).length, 1);
  const none = { ...noCpus, MemoryLimit: false, PidsLimit: false };
  assert.equal(await fit(none, large), { memoryBytes: 0, cpus: 0, pids: 0 });
  assert.equal(told, []);
});

test("checkLimits() warns of limits that cannot be enforced, or refuses", async () => {
  const told: string[] = [];
  const check = (info: Info, required: boolean) =>
    checkLimits(engine(info).docker, {
      required,
      log: (line) => told.push(line),
    });
  await check(plain, true);
  const without = { ...plain, MemoryLimit: false };
  await check(without, false);
  assert.equal(told, [
    "warning: The engine cannot limit memory of containers: the worker can use up those of the machine",
  ]);
  const failure = await failureOf(check(without, true));
  assert.is(failure.kind, "unsafe");
  assert.match(failure.hint ?? "", "Delegate the cgroup controllers");
});

test("describeEngine() tells what is measured by container", () => {
  const of = (change: object) =>
    describeEngine({ ...plain, ...change }).measures;
  assert.equal(of({}), { memory: true, cpus: true, pids: true });
  // Of cgroup version 2 only the controllers may be missing.
  assert.equal(of({ MemoryLimit: false, CpuCfsQuota: false }), {
    memory: false,
    cpus: true,
    pids: true,
  });
  assert.equal(of({ CgroupDriver: "none" }), {
    memory: false,
    cpus: false,
    pids: false,
  });
});

test("the engine's socket is the client's, except in a virtual machine", async () => {
  const socket = "/Users/dave/.engine/docker.sock";
  const of = (KernelVersion?: string) =>
    engineSocket(
      engine({ ...plain, ...(KernelVersion ? { KernelVersion } : {}) }).docker,
      socket,
      "6.1.0-amd64",
    );
  assert.is(await of("6.1.0-amd64"), socket);
  assert.is(await of("6.8.0-virtual"), "/var/run/docker.sock");
  // An engine that does not say.
  assert.is(await of(), socket);
});

test.run();
