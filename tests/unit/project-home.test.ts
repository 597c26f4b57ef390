// The files for GitHub and Renovate. They are not run here: the workflows are parsed by
// GitHub's own parser, the rest is compared with the documentation of its format.

import {
  existsSync,
  globSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import * as v from "valibot";
import { parse } from "yaml";
import { checkout } from "../../lib/std/checkout.ts";

const test = suite("project home");
const read = (file: string) => readFileSync(join(checkout, file), "utf8");
const workflows = globSync(".github/workflows/*.yml", { cwd: checkout }).sort();

type Parser = typeof import("@actions/workflow-parser");
let parser: Parser;

test.before(async () => {
  const directory = mkdtempSync(join(tmpdir(), "hal9000-parser-"));
  try {
    // Bundled, because it imports JSON in a way that only Node accepts.
    const outfile = join(directory, "parser.cjs");
    await build({
      stdin: {
        contents: 'export * from "@actions/workflow-parser"',
        resolveDir: checkout,
      },
      bundle: true,
      platform: "node",
      format: "cjs",
      outfile,
    });
    parser = createRequire(outfile)(outfile);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

async function faultsOf(name: string, content: string): Promise<string[]> {
  const { convertWorkflowTemplate, NoOperationTraceWriter, parseWorkflow } =
    parser;
  const { context, value } = parseWorkflow(
    { name, content },
    new NoOperationTraceWriter(),
  );
  const template = value && await convertWorkflowTemplate(context, value);
  return [
    ...context.errors.getErrors().map(({ message }) => message),
    ...(template?.errors ?? []).map(({ Message }) => Message),
  ];
}

interface Step {
  uses?: string;
  run?: string;
}

interface Job {
  uses?: string;
  needs?: string;
  steps?: Step[];
  permissions?: Record<string, string>;
  "timeout-minutes"?: number;
}

interface Workflow {
  permissions: Record<string, string>;
  jobs: Record<string, Job>;
}

test("there is a workflow for tests, images and releases", () => {
  assert.equal(
    workflows.map((file) => file.split("/").at(-1)),
    ["images.yml", "release.yml", "test.yml"],
  );
});

test("the parser finds what GitHub would refuse", async () => {
  const workflow = (job: string) =>
    `on: push\njobs:\n  a:\n    runs-on: x\n    ${job}\n    steps: [run: x]\n`;
  assert.equal(await faultsOf("x.yml", workflow("env: {}")), []);
  assert.ok((await faultsOf("x.yml", workflow("needs: b"))).length > 0);
  assert.ok((await faultsOf("x.yml", workflow("steppes: []"))).length > 0);
});

for (const file of workflows) {
  const text = read(file);
  const workflow: Workflow = parse(text);
  const jobs = Object.entries(workflow.jobs);
  const steps = jobs.flatMap(([, job]) => job.steps ?? []);

  test(`${file} is valid`, async () => {
    assert.equal(await faultsOf(file, text), []);
  });

  test(`${file} pins each action by commit, with its version`, () => {
    const lines = [...text.matchAll(/uses: (.*)/g)].map(([, line]) => line);
    assert.ok(lines.length > 0);
    for (const line of lines) {
      assert.match(
        String(line),
        /^(\.\/|[\w.-]+\/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$)/,
      );
    }
  });

  test(`${file} uses files and targets of make that exist`, () => {
    const targets = [...read("Makefile").matchAll(/^([a-z-]+):/gm)]
      .map(([, name]) => name);
    for (const { run = "" } of steps) {
      for (const [, target] of run.matchAll(/\bmake ([a-z-]+)/g)) {
        assert.ok(targets.includes(target), `make ${target}`);
      }
    }
    const paths = [
      ...text.matchAll(/(?:tests\/bats\/\S+?\.bats|\.\/\.github\/\S+)/g),
      ...text.matchAll(/(?<=[[ ])(?:docker|lib\/image)(?=\/\*\*)/g),
    ].map(([path]) => path);
    for (const path of paths) {
      assert.ok(existsSync(join(checkout, path)), path);
    }
    for (const [name, { needs, uses }] of jobs) {
      if (needs) assert.ok(Object.hasOwn(workflow.jobs, needs), name);
      if (uses) assert.ok(existsSync(join(checkout, uses)), uses);
    }
  });

  test(`${file} has few rights, an end, and no script with inserted values`, () => {
    assert.equal(workflow.permissions, { contents: "read" });
    for (const [name, job] of jobs) {
      if (job.uses === undefined) assert.ok(job["timeout-minutes"], name);
    }
    // A branch's name would be run as a part of the script.
    for (const { run = "" } of steps) assert.not.match(run, /\$\{\{/);
    assert.not.match(text, /pull_request_target|secrets\./);
  });
}

test("a release is published with provenance, after the tests", () => {
  const { jobs }: Workflow = parse(read(".github/workflows/release.yml"));
  const { publish } = jobs;
  assert.is(publish?.needs, "test");
  assert.equal(publish?.permissions, { contents: "read", "id-token": "write" });
  assert.ok(publish?.steps?.some(({ run }) => run?.includes("--provenance")));
  // No scripts of dependencies where the package can be published.
  assert.ok(
    publish?.steps?.some(({ run }) => run === "npm ci --ignore-scripts"),
  );
  assert.not.ok(publish?.steps?.some(({ run }) => run === "npm ci"));
});

// https://docs.github.com/en/communities/using-templates-to-encourage-useful-issues-and-pull-requests/syntax-for-githubs-form-schema
const validations = v.optional(v.strictObject({ required: v.boolean() }));
const id = v.pipe(v.string(), v.regex(/^[\w-]+$/));
const words = v.pipe(v.string(), v.nonEmpty());
const labelled = { label: words, description: v.optional(words) };
const formSchema = v.strictObject({
  name: words,
  description: words,
  labels: v.array(words),
  body: v.pipe(
    v.array(v.variant("type", [
      v.strictObject({
        type: v.literal("markdown"),
        attributes: v.strictObject({ value: words }),
      }),
      v.strictObject({
        type: v.picklist(["textarea", "input"]),
        id,
        attributes: v.strictObject({
          ...labelled,
          placeholder: v.optional(words),
          value: v.optional(words),
          render: v.optional(words),
        }),
        validations,
      }),
      v.strictObject({
        type: v.literal("dropdown"),
        id,
        attributes: v.strictObject({
          ...labelled,
          options: v.pipe(v.array(words), v.minLength(1)),
        }),
        validations,
      }),
    ])),
    v.check(
      (body) => body.some(({ type }) => type !== "markdown"),
      "needs a field",
    ),
    v.check((body) => {
      const labels = body.flatMap((field) =>
        field.type === "markdown" ? [] : [field.id, field.attributes.label]
      );
      return new Set(labels).size === labels.length;
    }, "has an id or a label twice"),
  ),
});

const chooserSchema = v.strictObject({
  blank_issues_enabled: v.boolean(),
  contact_links: v.array(v.strictObject({
    name: words,
    url: v.pipe(v.string(), v.url(), v.startsWith("https://")),
    about: words,
  })),
});

test("issue forms have the form that GitHub expects", () => {
  const forms = globSync(".github/ISSUE_TEMPLATE/*.yml", { cwd: checkout });
  assert.is(forms.length, 3);
  for (const file of forms) {
    const schema = file.endsWith("config.yml") ? chooserSchema : formSchema;
    const { issues } = v.safeParse(schema, parse(read(file)));
    assert.is(issues && v.summarize(issues), undefined, file);
  }
});

test("contact links lead to files of the repository", () => {
  const chooser = v.parse(
    chooserSchema,
    parse(read(".github/ISSUE_TEMPLATE/config.yml")),
  );
  for (const { url } of chooser.contact_links) {
    const path = /\/blob\/main\/(.*)/.exec(url)?.[1];
    if (path) assert.ok(existsSync(join(checkout, path)), path);
  }
});

// https://docs.renovatebot.com/configuration-options/
const renovateSchema = v.strictObject({
  $schema: v.literal("https://docs.renovatebot.com/renovate-schema.json"),
  extends: v.array(v.pipe(v.string(), v.regex(/^(config|helpers|):\w+$/))),
  minimumReleaseAge: v.pipe(v.string(), v.regex(/^\d+ days$/)),
  rangeStrategy: v.picklist(["auto", "pin", "bump", "replace", "widen"]),
  lockFileMaintenance: v.strictObject({
    enabled: v.boolean(),
    schedule: v.array(v.pipe(v.string(), v.regex(/^\*( [\d*,-]+){4}$/))),
  }),
  packageRules: v.array(v.strictObject({
    description: words,
    matchPackageNames: v.optional(v.array(words)),
    matchManagers: v.optional(v.array(v.picklist(["dockerfile", "npm"]))),
    matchUpdateTypes: v.optional(
      v.array(v.picklist(["major", "minor", "patch"])),
    ),
    groupName: v.optional(words),
    automerge: v.optional(v.boolean()),
    enabled: v.optional(v.boolean()),
  })),
});

test("renovate.json has known options, and rules for packages that exist", () => {
  const config = v.parse(renovateSchema, JSON.parse(read("renovate.json")));
  const manifest = JSON.parse(read("package.json"));
  const packages = ["dependencies", "optionalDependencies", "devDependencies"]
    .flatMap((kind) => Object.keys(manifest[kind]));
  for (const { matchPackageNames = [] } of config.packageRules) {
    for (const pattern of matchPackageNames) {
      const start = pattern.replace(/\*$/, "");
      assert.ok(
        packages.some((name) =>
          pattern.endsWith("*") ? name.startsWith(start) : name === pattern
        ),
        pattern,
      );
    }
  }
});

test.run();
