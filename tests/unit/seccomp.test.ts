import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { homePaths } from "../../lib/instance/paths.ts";
import {
  ensureSeccompTried,
  faultIn,
  readTrial,
  seccompOptions,
  workerProfile,
  workerProfileText,
  workerSeccomp,
} from "../../lib/image/seccomp.ts";
import type { Docker } from "../../lib/docker/docker.ts";
import {
  type FakeEngine,
  type FakeInstance,
  fakeInstance,
} from "../helper/fake-engine.ts";

const test = suite("seccomp");

const profile = JSON.parse(workerProfileText().text) as ReturnType<
  typeof workerProfile
>;

const rulesFor = (name: string) =>
  profile.syscalls.filter(({ names }) => names.includes(name));

test("workerProfile() allows a mode only without set-uid and set-gid", () => {
  for (const [name, index] of [["chmod", 1], ["fchmodat", 2], ["creat", 1]]) {
    assert.equal(rulesFor(name as string), [{
      names: [name],
      action: "SCMP_ACT_ALLOW",
      args: [{
        index,
        value: 0o6000,
        valueTwo: 0,
        op: "SCMP_CMP_MASKED_EQ",
      }],
    }]);
  }
});

test("workerProfile() checks the mode of open only if it creates a file", () => {
  const masks = rulesFor("openat").map(({ args }) =>
    args?.map(({ index, value }) => [index, value])
  );
  assert.equal(masks, [[[3, 0o6000]], [[2, 0o20000100]]]);
});

test("workerProfile() returns ENOSYS for calls with hidden arguments", () => {
  for (const name of ["openat2", "fchmodat2", "io_uring_setup"]) {
    const [rule, ...others] = rulesFor(name);
    assert.equal(others, []);
    assert.equal([rule?.action, rule?.errnoRet], ["SCMP_ACT_ERRNO", 38]);
  }
});

test("workerProfile() has no rule for other ABIs, capabilities or socketcall", () => {
  assert.not(profile.archMap.some((arch) => "subArchitectures" in arch));
  assert.equal(rulesFor("socketcall"), []);
  assert.equal(rulesFor("mount"), []);
  assert.equal(rulesFor("open_by_handle_at"), []);
  assert.ok(rulesFor("clone").length > 0);
  assert.ok(rulesFor("execve").length === 1);
});

test("readTrial() ignores results of another profile and invalid files", () => {
  const home = homePaths(mkdtempSync(join(tmpdir(), "hal9000-seccomp-")));
  mkdirSync(dirname(home.seccompTrial), { recursive: true });
  const write = (value: unknown) =>
    writeFileSync(home.seccompTrial, JSON.stringify(value));
  assert.is(readTrial({ home }), undefined);
  const { digest } = workerProfileText();
  const trial = { version: 1, profile: digest, engine: "20.10", fault: null };
  write(trial);
  assert.equal(readTrial({ home }), trial);
  write({ ...trial, profile: "another" });
  assert.is(readTrial({ home }), undefined);
  write("junk");
  assert.is(readTrial({ home }), undefined);
  rmSync(home.home, { recursive: true });
});

test("faultIn() accepts only a refusal as a working profile", () => {
  assert.is(faultIn("refused"), null);
  assert.is(faultIn("set"), "it has no effect");
  assert.match(faultIn("bash: killed") ?? "", /cannot run with it: bash/);
  assert.match(faultIn("") ?? "", /no output/);
});

/** The engine, which refuses a container for the reason that `why` gives for its profile. */
function refusing(
  engine: FakeEngine,
  why: (profile: string) => string | undefined,
): Docker {
  const { docker } = engine;
  return Object.assign(Object.create(docker), docker, {
    createContainer: (request: { _body: Docker.ContainerCreateOptions }) => {
      const option = request._body.HostConfig?.SecurityOpt?.at(-1) ?? "";
      const message = why(option.replace("seccomp=", ""));
      if (message === undefined) {
        return docker.createContainer(request as object);
      }
      return Promise.reject(
        Object.assign(new Error(message), {
          statusCode: 500,
          json: { message },
        }),
      );
    },
  });
}

/** An instance that uses our profile, with an engine whose test prints `output`. */
async function withTrials(
  output: string,
  act: (
    fake: FakeInstance,
    tried: () => number,
  ) => Promise<void>,
): Promise<void> {
  const fake = fakeInstance();
  try {
    const { engine, instance } = fake;
    instance.settings = { ...instance.settings, WORKER_SECCOMP: "hal9000" };
    engine.print = () => `${output}\n`;
    engine.images.set("sha256:parent", { Id: "sha256:parent" });
    await act(
      fake,
      () => engine.asked.filter((what) => what.startsWith("create")).length,
    );
  } finally {
    fake.end();
  }
}

test("a profile that works is tested once for each version of the engine", async () => {
  await withTrials(
    "refused",
    async ({ instance, engine, log, told }, tried) => {
      await ensureSeccompTried(instance, log);
      assert.equal(readTrial(instance)?.fault, null);
      assert.is(readTrial(instance)?.engine, "28.0.0, 6.8, runc 1.2");
      await ensureSeccompTried(instance, log);
      assert.is(tried(), 1);
      engine.version.Components = [{ Name: "runc", Version: "1.3" }];
      await ensureSeccompTried(instance, log);
      assert.is(tried(), 2);
      engine.version.KernelVersion = "6.9";
      await ensureSeccompTried(instance, log);
      assert.is(tried(), 3);
      assert.is(await workerSeccomp(instance, log), workerProfileText().text);
      assert.is(tried(), 3);
      assert.equal(told, []);
      // Nothing of the test is left, and it runs with the profile, without rights.
      assert.not.ok(engine.names().some((name) => name.includes("helper")));
    },
  );
});

test("a profile that did not work is tested again, with a warning each time", async () => {
  await withTrials("set", async ({ instance, engine, log, told }, tried) => {
    assert.is(await workerSeccomp(instance, log), undefined);
    assert.is(tried(), 1);
    // Workers do not wait for another test.
    assert.is(await workerSeccomp(instance, log), undefined);
    assert.is(tried(), 1);
    await ensureSeccompTried(instance, log);
    assert.is(tried(), 2);
    const warning =
      "warning: Workers use the engine's default seccomp profile: it has no effect";
    assert.equal(told, [warning, warning]);
    engine.print = () => "refused\n";
    await ensureSeccompTried(instance, log);
    assert.is(await workerSeccomp(instance, log), workerProfileText().text);
  });
});

test("an engine that refuses the profile is a fault of it; any other error is not", async () => {
  await withTrials("refused", async ({ instance, engine, log }) => {
    const failing = (message: string) => ({
      ...instance,
      docker: refusing(engine, () => message),
    });
    const error = await ensureSeccompTried(failing("the disk is full"), log)
      .then(() => undefined, (error: Error) => error);
    assert.is(
      error?.message,
      "Cannot test the workers' profile: the disk is full",
    );
    assert.is(readTrial(instance), undefined);
    for (
      const message of ["seccomp is not enabled", "invalid --security-opt: x"]
    ) {
      await ensureSeccompTried(failing(message), log);
      assert.is(
        readTrial(instance)?.fault,
        `programs cannot run with it: Cannot test the workers' profile: ${message}`,
      );
    }
  });
});

test("an engine that reads the profile from a file gets its path", async () => {
  await withTrials("refused", async (fake) => {
    const { engine, log, told } = fake;
    const { seccompProfile } = homePaths("/host/home");
    const instance = {
      ...fake.instance,
      hostHome: homePaths("/host/home"),
      docker: refusing(
        engine,
        (profile) =>
          profile === seccompProfile
            ? undefined
            : `opening seccomp profile failed: open ${profile}: no such file`,
      ),
    };
    assert.is(await workerSeccomp(instance, log), seccompProfile);
    const { seccompProfile: file } = instance.home;
    assert.is(readFileSync(file, "utf8"), workerProfileText().text);
    assert.equal(told, []);
    // docker run would send its content.
    assert.equal(await seccompOptions(instance, log), []);
  });
});

test("the profile is used untested while there is no image to test it with", async () => {
  await withTrials("set", async ({ instance, engine, log }, tried) => {
    engine.images.clear();
    assert.is(await workerSeccomp(instance, log), workerProfileText().text);
    assert.is(tried(), 0);
    engine.images.set("repo:worker", { Id: "sha256:worker" });
    engine.images.set("sha256:worker", { Id: "sha256:worker" });
    assert.is(await workerSeccomp(instance, log), undefined);
    assert.is(tried(), 1);
  });
});

test("docker run gets the profile as a file, and no option for the engine's profile", async () => {
  await withTrials("refused", async ({ instance, log }, tried) => {
    const { seccompProfile } = instance.home;
    assert.equal(await seccompOptions(instance, log), [
      `--security-opt=seccomp=${seccompProfile}`,
    ]);
    assert.is(readFileSync(seccompProfile, "utf8"), workerProfileText().text);
    rmSync(seccompProfile);
    const settings = {
      ...instance.settings,
      WORKER_SECCOMP: "engine" as const,
    };
    assert.equal(await seccompOptions({ ...instance, settings }, log), []);
    await ensureSeccompTried({ ...instance, settings }, log);
    assert.not.ok(existsSync(seccompProfile));
    assert.is(tried(), 1);
  });
});

test.run();
