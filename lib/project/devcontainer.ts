// Reads a project's devcontainer.json. Anyone can write one, so only what makes up the
// image is used, together with postCreateCommand and containerEnv.
// https://containers.dev/implementors/json_reference/

import { parse, type ParseError, printParseErrorCode } from "jsonc-parser";
import * as v from "valibot";
import { isTooComplex } from "../std/json.ts";
import { readPlain, Unreviewable } from "../std/plain-below.ts";
import { insideWorker } from "../instance/paths.ts";
import { isForbiddenVariable } from "./project-config.ts";

const maxFileBytes = 64 * 1024;

/** A devcontainer.json that can be used. */
export interface Devcontainer {
  /** The file's path in the project. */
  file: string;
  /** What the image is made from. */
  source:
    | { image: string }
    | {
      dockerfile: string;
      context: string;
      target: string | undefined;
      args: Record<string, string>;
    };
  /** Options by directory, which begins with ./ */
  features: Record<string, FeatureOptions>;
  /** Users for whom the features are installed; workers run as the project's owner. */
  users: { containerUser?: string; remoteUser?: string };
  env: Record<string, string>;
  /** Commands to run in a new worker, one after the other. */
  postCreate: string[][];
  /** Properties that have no effect, each with the reason. */
  unused: string[];
}

const isolation = "workers have no privileges";
const onlyPostCreate = "only postCreateCommand is run";
const ownUser = "a worker runs as the owner of the project";

/** Why properties have no effect. */
const reasons: Record<string, string> = {
  mounts: "a project must not choose what its worker sees of this machine",
  workspaceMount: "the project is mounted at /workspace",
  workspaceFolder: "the project is mounted at /workspace",
  runArgs: "they could remove the worker's isolation",
  privileged: isolation,
  capAdd: isolation,
  securityOpt: isolation,
  initializeCommand: "it would run on this machine, outside of the worker",
  onCreateCommand: onlyPostCreate,
  updateContentCommand: onlyPostCreate,
  postStartCommand: onlyPostCreate,
  postAttachCommand: onlyPostCreate,
  containerUser: ownUser,
  remoteUser: ownUser,
  remoteEnv: "only containerEnv is used",
  secrets: "save them with claudy secret set NAME",
  forwardPorts: "to open one: claudy ports open PORT",
  appPort: "to open one: claudy ports open PORT",
};

/** About editors, or already so in workers; not worth a line. */
const ignored = [
  "$schema",
  "name",
  "customizations",
  "extensions",
  "settings",
  "devPort",
  "shutdownAction",
  "overrideCommand",
  "overrideFeatureInstallOrder",
  "updateRemoteUserUID",
  "userEnvProbe",
  "hostRequirements",
  "portsAttributes",
  "otherPortsAttributes",
  "waitFor",
  "init",
];

const variablePattern =
  /\$\{((?:localEnv|env|containerEnv|localWorkspaceFolder|localWorkspaceFolderBasename|containerWorkspaceFolder|containerWorkspaceFolderBasename|devcontainerId)(?::[^}]*)?)\}/g;

const known: Record<string, string> = {
  containerWorkspaceFolder: insideWorker.workspace,
  containerWorkspaceFolderBasename: insideWorker.workspace.slice(1),
};

/** Text of one line, with the variables of devcontainers replaced. */
const text = v.pipe(
  v.string("must be text"),
  v.maxLength(8192, "is too long"),
  // deno-lint-ignore no-control-regex -- these are what is refused
  v.regex(/^[^\0-\x1f\x7f]*$/, "contains control characters"),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const unknown = [...dataset.value.matchAll(variablePattern)]
      .map(([, name = ""]) => name).find((name) => !Object.hasOwn(known, name));
    if (unknown !== undefined) {
      const isLocal = /^(localEnv|env)\b/.test(unknown);
      addIssue({
        message: `uses \${${unknown}}: ${
          isLocal
            ? "a project must not read variables of this machine"
            : "this is not supported"
        }`,
      });
      return NEVER;
    }
    return dataset.value.replace(
      variablePattern,
      (_, name) => known[name] ?? "",
    );
  }),
);

/** A word that cannot be an option of docker. */
const word = v.pipe(text, v.regex(/^[\w][^\s]*$/, "is not a valid name"));

const line = v.pipe(text, v.transform((line) => [["/bin/sh", "-c", line]]));
const words = v.pipe(
  v.array(text, "must be a command"),
  v.minLength(1, "must be a command"),
  v.transform((words) => [words]),
);
// Not a union: its issues do not say what is wrong with the text.
const command = v.lazy((given): v.GenericSchema<unknown, string[][]> =>
  typeof given === "string" ? line : words
);
const commandsByName = v.pipe(
  v.record(v.string(), command, "must be a command, or several by name"),
  v.transform((named) => Object.values(named).flat()),
);
const commands = v.lazy((given): v.GenericSchema<unknown, string[][]> =>
  typeof given === "string" || Array.isArray(given) ? command : commandsByName
);

const variables = v.record(
  v.pipe(v.string(), v.regex(/^[A-Za-z_]\w*$/, "has an invalid name")),
  text,
);

const option = v.lazy((given): v.GenericSchema<unknown, string | boolean> =>
  typeof given === "boolean" ? v.boolean() : text
);
/** A single text or boolean is the option "version". */
const feature = v.lazy((given): v.GenericSchema<unknown, FeatureOptions> =>
  typeof given === "object" ? v.record(v.string(), option) : option
);

type FeatureOptions = string | boolean | Record<string, string | boolean>;

const buildSchema = v.looseObject({
  dockerfile: v.optional(text),
  context: v.optional(text),
  target: v.optional(word),
  args: v.optional(variables, {}),
});

const schema = v.looseObject({
  image: v.optional(word),
  build: v.optional(buildSchema),
  /** The former places of build.dockerfile and build.context. */
  dockerFile: v.optional(text),
  context: v.optional(text),
  features: v.optional(v.record(text, feature), {}),
  containerEnv: v.optional(variables, {}),
  containerUser: v.optional(word),
  remoteUser: v.optional(word),
  postCreateCommand: v.optional(commands),
});

type Given = v.InferOutput<typeof schema>;

/** Throws Unreviewable if it cannot be used. `root` is the project's directory. */
export function readDevcontainer(root: string, file: string): Devcontainer {
  const bytes = readPlain(root, file, maxFileBytes);
  if (!bytes) throw new Unreviewable(`${file} is missing`);
  const given = checked(file, parsed(file, bytes.toString("utf8")));
  const fault = faultOf(given);
  if (fault) throw new Unreviewable(fault);
  const { containerUser, remoteUser } = given;
  return {
    file,
    source: sourceOf(given),
    features: given.features,
    users: {
      ...(containerUser ? { containerUser } : {}),
      ...(remoteUser ? { remoteUser } : {}),
    },
    env: given.containerEnv,
    postCreate: given.postCreateCommand ?? [],
    unused: unusedOf(given),
  };
}

function parsed(file: string, jsonc: string): unknown {
  if (isTooComplex(jsonc)) throw new Unreviewable(`${file} is too complex`);
  const errors: ParseError[] = [];
  const value = parse(jsonc, errors, { allowTrailingComma: true });
  const [error] = errors;
  if (!error) return value;
  const line = jsonc.slice(0, error.offset).split("\n").length;
  throw new Unreviewable(
    `${file}:${line}: ${printParseErrorCode(error.error)}`,
  );
}

function checked(file: string, value: unknown): Given {
  if (Array.isArray(value)) {
    throw new Unreviewable(`${file} is not a JSON object`);
  }
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const where = v.getDotPath(issue);
  throw new Unreviewable(
    where ? `${where} ${issue.message}` : `${file} is not a JSON object`,
  );
}

/** Why it cannot be used at all. */
function faultOf(given: Given): string | undefined {
  if ("dockerComposeFile" in given) {
    return "dockerComposeFile is not supported: a worker is one container";
  }
  for (const key of ["options", "cacheFrom"]) {
    if (isSet(given.build?.[key])) {
      return `build.${key} is not supported: it could read files of this machine`;
    }
  }
  const remote = Object.keys(given.features).find((id) => !id.startsWith("./"));
  if (remote !== undefined) {
    return `the feature ${remote} is not part of the project, so its content ` +
      "cannot be reviewed; copy it into .devcontainer";
  }
  const forbidden = Object.keys(given.containerEnv).find(isReserved);
  if (forbidden !== undefined) {
    return `containerEnv must not set ${forbidden}`;
  }
  const dockerfile = given.build?.dockerfile ?? given.dockerFile;
  if ((given.image === undefined) === (dockerfile === undefined)) {
    return "it must have either image or build.dockerfile";
  }
  return undefined;
}

/** Variables on which the worker, or the safety of Claude's credentials, depends. */
export function isReserved(name: string): boolean {
  return ["HOME", "PATH", "SHELL", "BASH_ENV", "ENV"].includes(name) ||
    /^(LD_|GIT_CONFIG)/.test(name) || isForbiddenVariable(name);
}

function sourceOf(given: Given): Devcontainer["source"] {
  const { image, build } = given;
  if (image !== undefined) return { image };
  return {
    dockerfile: build?.dockerfile ?? given.dockerFile ?? "",
    context: build?.context ?? given.context ?? ".",
    target: build?.target,
    args: build?.args ?? {},
  };
}

const used = [...Object.keys(schema.entries), "dockerComposeFile"];

function unusedOf(given: Given): string[] {
  return Object.entries(given)
    .filter(([key, value]) =>
      isSet(value) && !ignored.includes(key) &&
      (!used.includes(key) || Object.hasOwn(reasons, key))
    )
    .map(([key]) =>
      `${key} (${Object.hasOwn(reasons, key) ? reasons[key] : "unknown"})`
    );
}

/** False for what a property is by default. */
function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false &&
    !(typeof value === "object" && Object.keys(value).length === 0);
}

/** A command as its author wrote it. */
export function shownCommand(words: string[]): string {
  const [shell, option, line = ""] = words;
  return shell === "/bin/sh" && option === "-c" ? line : words.join(" ");
}
