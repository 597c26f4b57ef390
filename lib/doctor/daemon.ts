// Checks of the parent and its services.

import { existsSync, statSync } from "node:fs";
import { type DaemonStatus, daemonStatus } from "../daemon/status.ts";
import {
  isDashboardDesired,
  isNewEnough,
  minVersion,
} from "../parent/dashboard/server.ts";
import { inspectContainer } from "../docker/docker.ts";
import { execIn } from "../docker/exec.ts";
import { forwardAnswers } from "../gateway/forward.ts";
import type { Instance } from "../instance/instance.ts";
import { hostFault, refusesHost } from "../daemon/net.ts";
import { withoutNetwork } from "../worker/workers.ts";
import {
  foreignOwner,
  noCrossing,
  ownerHint,
  parentAnswers,
  socketsCross,
} from "../instance/parent-socket.ts";
import { poolAnswers, poolStatus } from "../pool/client.ts";
import { readParentState } from "../instance/parent-state.ts";
import { readDesired } from "../pool/desired.ts";
import { span } from "../std/units.ts";
import { compareVersions } from "../std/version.ts";
import { version } from "../cli/cli.ts";
import { listWorkers } from "../worker/workers.ts";
import { fail, type Finding, ok, warn } from "./findings.ts";

export async function examineParent(
  instance: Instance,
  _env: NodeJS.ProcessEnv,
  build: string,
): Promise<Finding> {
  const { names, docker } = instance;
  const parent = await inspectContainer(docker, names.parent);
  if (parent?.State.Paused) {
    return fail("paused", "claudy daemon start");
  }
  const status = await daemonStatus(instance);
  if (status.parent !== "running") {
    // Before the first start, everything else is missing too.
    const isNew = !existsSync(instance.home.home);
    return fail(
      `${status.parent}`,
      isNew ? "claudy up" : "claudy daemon start",
    );
  }
  const down = status.children.filter(({ pid }) => pid === null);
  if (down.length > 0) {
    return fail(
      `down: ${down.map(({ name }) => name).join(", ")}`,
      "claudy daemon restart",
    );
  }
  if (status.build !== null && status.build !== build) {
    return otherBuild(status, build);
  }
  return ok(`running for ${span(status.uptimeMs ?? 0)}`);
}

/** A parent of another build than this command. */
function otherBuild(
  { version: runs, build: runsBuild }: DaemonStatus,
  build: string,
): Finding {
  const difference = runs === null ? undefined : compareVersions(version, runs);
  if (!difference) {
    return warn(
      `build ${runsBuild}, this command is build ${build}`,
      "claudy upgrade",
    );
  }
  return difference > 0
    ? warn(
      `version ${runs}, older than this command's ${version}`,
      "claudy upgrade",
    )
    : warn(
      `version ${runs}, newer than this command's ${version}`,
      "npm install -g hal-9000-dind@latest",
    );
}

/** The network namespace that workers share. */
export async function examineNetwork(instance: Instance): Promise<Finding> {
  const { names, docker } = instance;
  const [net, workers] = await Promise.all([
    inspectContainer(docker, names.net),
    listWorkers(instance),
  ]);
  const lost = await withoutNetwork(instance, workers);
  const says = lost.size === 0
    ? ""
    : `workers without a network: ${[...lost].join(", ")}`;
  if (!net && workers.length === 0) {
    return ok(`${names.net} is absent until the daemon is started`);
  }
  if (!net?.State.Running) {
    const state = net?.State.Status ?? "absent";
    return fail(
      [`${names.net} is ${state}`, says].filter(Boolean).join("; "),
      "claudy daemon start",
    );
  }
  if (net.State.Paused) return fail("paused", "claudy daemon start");
  if (readParentState(instance)?.portsLeft === false) {
    return fail(
      "a worker occupies all ports: no worker can open a connection",
      "find that worker and stop it: hal9000-coordinator list; claudy stop NAME",
    );
  }
  const isolated =
    workers.filter(({ network }) => network === "isolated").length;
  const shared = `${workers.length - isolated} workers in it`;
  return says === ""
    ? ok(isolated === 0 ? shared : `${shared}, isolated: ${isolated}`)
    : warn(says, `claudy stop ${[...lost].join(" ")}`);
}

/** Whether workers can reach the host: seen from the filter, no packet is sent. */
export async function examineHost(instance: Instance): Promise<Finding> {
  const { docker, names, settings } = instance;
  const net = await inspectContainer(docker, names.net);
  if (!net?.State.Running || net.State.Paused) {
    return ok("no workers: there is no network");
  }
  const fault = await hostFault(instance, net);
  if (fault === undefined) return ok("out of reach of workers");
  if (settings.ALLOW_HOST) {
    return ok("within reach of workers: ALLOW_HOST=true");
  }
  return warn(
    `workers can reach it: ${fault}`,
    refusesHost(net)
      ? `docker logs ${names.net}`
      : "stop all workers, then: claudy daemon restart",
  );
}

export async function examineChromadb(instance: Instance): Promise<Finding> {
  const parent = await inspectContainer(instance.docker, instance.names.parent);
  if (!parent?.State.Running || parent.State.Paused) {
    return fail("the parent is not running", "claudy daemon start");
  }
  const command = ["/scripts/healthcheck"];
  const { exitCode, output } = await execIn(
    instance.docker,
    parent.Id,
    command,
  );
  return exitCode === 0
    ? ok(`answers on localhost:${instance.settings.CHROMADB_PORT}`)
    : fail(lastLine(output), "claudy daemon restart");
}

function lastLine(output: string): string {
  return output.trim().split("\n").at(-1)?.replace(/^error: /, "") ?? "";
}

/** The sockets on which the parent serves commands of the host. */
export async function examineSockets(instance: Instance): Promise<Finding> {
  const { home, docker, names } = instance;
  const wanted: [string, () => Promise<boolean>][] = [
    [home.parentSocket, () => parentAnswers(instance)],
    [home.connectSocket, () => forwardAnswers(instance)],
  ];
  if (readDesired(instance).enabled) {
    wanted.push([home.poolSocket, () => poolAnswers(instance)]);
  }
  const cross = socketsCross(instance) ?? true;
  const faults: string[] = [];
  for (const [path, answers] of wanted) {
    if (await answers()) continue;
    // Files of sockets that do not cross may look different here.
    const found = !cross ||
      statSync(path, { throwIfNoEntry: false })?.isSocket();
    faults.push(`${found ? "no answer" : "missing"}: ${path}`);
  }
  if (faults.length === 0) {
    return ok(
      cross
        ? `${wanted.length} in ${home.run}`
        : `${wanted.length}, by docker exec: ${noCrossing}`,
    );
  }
  const foreign = await foreignOwner(instance);
  if (foreign !== undefined) return fail(foreign, ownerHint);
  const parent = await inspectContainer(docker, names.parent);
  const runs = parent?.State.Running && !parent.State.Paused;
  return fail(
    faults.join("; "),
    runs ? "claudy daemon restart" : "claudy daemon start",
  );
}

export async function examinePool(instance: Instance): Promise<Finding> {
  if (!readDesired(instance).enabled) return ok("off");
  if (!await poolAnswers(instance)) return poolSilent();
  const status = await poolStatus(instance);
  const missing = status.profiles.filter(({ present }) => !present);
  if (missing.length > 0) {
    return warn(
      `not built: ${missing.map(({ image }) => image).join(", ")}`,
      `claudy profile build ${missing[0]?.name}`,
    );
  }
  return ok(`${status.warm.length} warm, ${status.busy.length} claimed`);
}

const poolSilent = () =>
  fail("the pool manager does not answer", "claudy daemon restart");

/** It tests itself at its start. */
export async function examineNsenter(instance: Instance): Promise<Finding> {
  const { servicesFault, shared } = readParentState(instance) ?? {};
  if (servicesFault) {
    return fail(
      `workers get no services: ${servicesFault}`,
      "claudy daemon restart",
    );
  }
  if (!readDesired(instance).enabled) {
    const ports = shared?.open.length ?? 0;
    return ok(`opens ${ports} ports to workers; the pool is off`);
  }
  if (!await poolAnswers(instance)) return poolSilent();
  const { unavailable } = await poolStatus(instance);
  return unavailable === null ? ok("its self-test passed") : warn(
    `no warm claims: ${unavailable}`,
    "claudy pool status",
  );
}

export async function examineDashboard(instance: Instance): Promise<Finding> {
  if (!isDashboardDesired(instance)) return ok("off");
  const parent = await inspectContainer(instance.docker, instance.names.parent);
  if (!parent?.State.Running || parent.State.Paused) {
    return fail("the parent is not running", "claudy daemon start");
  }
  const { exitCode, output } = await execIn(
    instance.docker,
    parent.Id,
    ["tmux", "-V"],
  );
  if (exitCode !== 0) {
    return warn("no tmux in the parent", "only the dashboard needs it");
  }
  const version = output.trim();
  return isNewEnough(version)
    ? ok(version)
    : warn(`${version} is older than ${minVersion}`, "claudy up");
}
