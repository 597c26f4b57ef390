// What is well and what is not, with the command that mends it.

import { existsSync, readdirSync, statfsSync, statSync } from "node:fs";
import { credentialFor } from "./credentials.ts";
import { daemonStatus } from "./daemon-status.ts";
import { inspectContainer, inspectImage, minimumApi } from "./docker.ts";
import { messageOf } from "./errors.ts";
import { execIn } from "./exec.ts";
import { selectRecipes, workerImage } from "./images/recipes.ts";
import type { Instance } from "./instance.ts";
import { readLogin } from "./login.ts";
import { readWish } from "./pool/wish.ts";
import { poolStatus } from "./pool/client.ts";
import { readRecords } from "./record.ts";
import { binarySize, span } from "./units.ts";
import { isDashboardWished } from "./dashboard/server.ts";
import { listWorkers } from "./workers.ts";

export interface Finding {
  state: "ok" | "warn" | "fail";
  says: string;
  /** The command that mends it. */
  mend?: string;
}

export interface Check extends Finding {
  name: string;
}

type Examine = (
  instance: Instance,
  env: NodeJS.ProcessEnv,
) => Promise<Finding> | Finding;

const ok = (says: string): Finding => ({ state: "ok", says });
const warn = (says: string, mend: string): Finding => ({
  state: "warn",
  says,
  mend,
});
const fail = (says: string, mend: string): Finding => ({
  state: "fail",
  says,
  mend,
});

/** Each is asked even where another failed; without an engine, only some. */
const examinations: [name: string, needsEngine: boolean, Examine][] = [
  ["engine", false, examineEngine],
  ["home", false, examineHome],
  ["disk", false, examineDisk],
  ["memory", true, examineMemory],
  ["clock", true, examineClock],
  ["images", true, examineImages],
  ["parent", true, examineParent],
  ["chromadb", true, examineChromadb],
  ["pool", true, examinePool],
  ["dashboard", true, examineDashboard],
  ["credentials", false, examineCredentials],
  ["records", true, examineRecords],
  ["leftovers", true, examineLeftovers],
];

export async function examine(
  instance: Instance,
  env: NodeJS.ProcessEnv,
): Promise<Check[]> {
  const checks: Check[] = [];
  let engine = true;
  for (const [name, needsEngine, look] of examinations) {
    if (needsEngine && !engine) continue;
    let finding: Finding;
    try {
      finding = await look(instance, env);
    } catch (error) {
      finding = fail(messageOf(error), "claudy doctor --verbose");
    }
    if (name === "engine") engine = finding.state !== "fail";
    checks.push({ name, ...finding });
  }
  return checks;
}

async function examineEngine({ docker }: Instance): Promise<Finding> {
  let version;
  try {
    version = await docker.version();
  } catch (error) {
    return fail(`no engine answers: ${messageOf(error)}`, "make engine");
  }
  const { Version, ApiVersion } = version;
  const says = `${Version}, API ${ApiVersion}`;
  const [major = 0, minor = 0] = ApiVersion.split(".").map(Number);
  const [leastMajor = 0, leastMinor = 0] = minimumApi.split(".").map(Number);
  if (major < leastMajor || (major === leastMajor && minor < leastMinor)) {
    return fail(`${says}; ${minimumApi} is needed`, "make engine");
  }
  const info = await docker.info();
  if (info.MemoryLimit === false || info.PidsLimit === false) {
    return warn(
      `${says}; its cgroups limit no memory or processes`,
      "see docker info",
    );
  }
  return ok(`${says}, cgroups ${info.CgroupVersion ?? "1"}`);
}

function examineHome({ home, owner }: Instance): Finding {
  if (!existsSync(home.home)) {
    return warn(`${home.home} is not there yet`, "init-volumes");
  }
  const { mode } = statSync(home.home);
  if ((mode & 0o077) !== 0) {
    return fail(
      `${home.home} is open to others: ${(mode & 0o777).toString(8)}`,
      `chmod 700 ${home.home}`,
    );
  }
  const strangers = readdirSync(home.home).filter((name) => {
    const stat = statSync(`${home.home}/${name}`, { throwIfNoEntry: false });
    return stat !== undefined && stat.uid !== owner.uid;
  });
  return strangers.length === 0 ? ok(`${home.home}, of its owner alone`) : fail(
    `not its owner's: ${strangers.join(", ")}`,
    `chown -R ${owner.uid}:${owner.gid} ${home.home}`,
  );
}

const littleDisk = 2e9;
const leastDisk = 200e6;

function examineDisk({ home }: Instance): Finding {
  const path = existsSync(home.home) ? home.home : "/";
  const { bavail, bsize } = statfsSync(path);
  const free = bavail * bsize;
  const says = `${binarySize(free)} free at ${path}`;
  if (free < leastDisk) return fail(says, "claudy prune, or make room");
  return free < littleDisk ? warn(says, "make room") : ok(says);
}

async function examineMemory(instance: Instance): Promise<Finding> {
  const { docker, settings } = instance;
  const { MemTotal } = await docker.info();
  const each = settings.WORKER_MEMORY;
  const says = `${binarySize(MemTotal)} at the engine, ${
    binarySize(each)
  } for a worker at most`;
  return each <= MemTotal
    ? ok(says)
    : warn(says, "set WORKER_MEMORY in config/hal9000.conf");
}

/** Skewed clocks make ages and expiries wrong. */
const mostSkewMs = 5000;

async function examineClock({ docker }: Instance): Promise<Finding> {
  const { SystemTime } = await docker.info();
  const skew = Math.abs(Date.now() - Date.parse(SystemTime));
  return skew < mostSkewMs
    ? ok("as the engine's")
    : warn(`${span(skew)} off the engine's`, "set the clock");
}

async function examineImages(instance: Instance): Promise<Finding> {
  const { docker, settings } = instance;
  const repository = settings.HAL9000_IMAGE_REPO;
  const wanted = [
    workerImage(settings),
    ...["parent", "net"].map((tag) => `${repository}:${tag}`),
  ];
  const ages: string[] = [];
  for (const name of wanted) {
    const image = await inspectImage(docker, name);
    if (!image) return fail(`${name} is missing`, "make images");
    ages.push(span(Date.now() - Date.parse(image.Created)));
  }
  const known = selectRecipes(undefined).length;
  return ok(`${wanted.length} of ${known} in use, built ${ages[0]} ago`);
}

async function examineParent(instance: Instance): Promise<Finding> {
  const status = await daemonStatus(instance);
  if (status.parent !== "running") {
    return fail(`${status.parent}`, "claudy daemon start");
  }
  const down = status.children.filter(({ pid }) => pid === null);
  if (down.length > 0) {
    return fail(
      `down: ${down.map(({ name }) => name).join(", ")}`,
      "claudy daemon restart",
    );
  }
  return ok(`running for ${span(status.uptimeMs ?? 0)}`);
}

async function examineChromadb(instance: Instance): Promise<Finding> {
  const parent = await inspectContainer(instance.docker, instance.names.parent);
  if (!parent?.State.Running) {
    return fail("the parent is not running", "claudy daemon start");
  }
  const port = instance.settings.CHROMADB_PORT;
  const { exitCode } = await execIn(instance.docker, parent.Id, [
    "bash",
    "-c",
    `exec 3<>/dev/tcp/127.0.0.1/${port} &&
    printf 'GET /api/v2/heartbeat HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ' 200 ' <&3`,
  ]);
  return exitCode === 0
    ? ok(`answers on localhost:${port}`)
    : fail(`does not answer on localhost:${port}`, "claudy daemon restart");
}

async function examinePool(instance: Instance): Promise<Finding> {
  if (!readWish(instance).enabled) return ok("off");
  if (!existsSync(instance.home.poolSocket)) {
    return fail("its socket is missing", "claudy daemon restart");
  }
  const status = await poolStatus(instance.home.poolSocket);
  return status.unavailable === null
    ? ok(`${status.warm.length} warm, ${status.busy.length} claimed`)
    : warn(
      `no warm claims: ${status.unavailable}`,
      "see pool-manager status; everything is spawned cold",
    );
}

async function examineDashboard(instance: Instance): Promise<Finding> {
  if (!isDashboardWished(instance)) return ok("off");
  const parent = await inspectContainer(instance.docker, instance.names.parent);
  if (!parent?.State.Running) {
    return fail("the parent is not running", "claudy daemon start");
  }
  const { exitCode, output } = await execIn(
    instance.docker,
    parent.Id,
    ["tmux", "-V"],
  );
  return exitCode === 0
    ? ok(output.trim())
    : warn("no tmux in the parent", "all else works without it");
}

/** What there is, never what it says. */
function examineCredentials(
  instance: Instance,
  env: NodeJS.ProcessEnv,
): Finding {
  const { home } = instance;
  const chosen = credentialFor(instance, env);
  if (chosen === undefined) {
    return warn("none: each session has to log in by itself", "claudy login");
  }
  const says = {
    key: "a key is kept",
    caller: "ANTHROPIC_API_KEY of the environment",
    token: "a token is kept",
    login: "the instance is logged in",
  }[chosen];
  if (chosen !== "login") return ok(says);
  const expiresAt = readLogin(home)?.claudeAiOauth.expiresAt ?? 0;
  const left = expiresAt - Date.now();
  return left > 0 ? ok(`${says}, refreshed within ${span(left)}`) : warn(
    `${says}, but it has expired`,
    "claudy daemon start, else claudy login",
  );
}

async function examineRecords(instance: Instance): Promise<Finding> {
  const damaged: string[] = [];
  const records = readRecords(instance, (line) => damaged.push(line));
  if (damaged.length > 0) {
    return warn(damaged.join("; "), "none: they were moved aside");
  }
  const ids = new Set(
    (await listWorkers(instance)).map(({ id }) => id),
  );
  const stale = records.filter(({ container }) => !ids.has(container));
  return stale.length === 0
    ? ok(`${records.length} of ${ids.size} workers`)
    : warn(
      `without a worker: ${stale.map(({ worker }) => worker).join(", ")}`,
      "claudy daemon restart",
    );
}

/** Containers with our label that are nothing of what we know. */
async function examineLeftovers(instance: Instance): Promise<Finding> {
  const workers = await listWorkers(instance);
  const recorded = new Set(
    readRecords(instance, () => {}).map(({ container }) => container),
  );
  const strange = workers.filter(({ id }) => !recorded.has(id))
    .map(({ name }) => name);
  const ended = workers.filter(({ state, keep }) => state === "exited" && !keep)
    .map(({ name }) => name);
  const leaked = [...new Set([...strange, ...ended])];
  return leaked.length === 0 ? ok("none") : warn(
    `workers without a record, or ended: ${leaked.join(", ")}`,
    `coordinator stop ${leaked.join(" ")}`,
  );
}
