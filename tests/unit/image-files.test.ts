// Files with images: what is written, and which files are refused.

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import type { Docker } from "../../lib/docker/docker.ts";
import { label, versionLabel } from "../../lib/instance/labels.ts";
import {
  currentInputs,
  formerBases,
  inputsOf,
} from "../../lib/image/current.ts";
import { clonePlaces } from "../../lib/image/places.ts";
import { loadImages, saveImages } from "../../lib/image/transfer.ts";
import { checkout } from "../../lib/std/checkout.ts";
import type { Failure } from "../../lib/std/errors.ts";
import { type FakeInstance, fakeInstance } from "../helper/fake-engine.ts";

interface Context extends FakeInstance {
  directory: string;
  file: string;
  /** What the engine answers to an export. */
  exported: () => Readable;
  /** The names of the last export. */
  names: string[];
  /** The bytes of the last import. */
  imported: Buffer | undefined;
  /** What the engine reports of an import. */
  report: string;
}

const test = suite<Context>("image files");

const tags = ["worker-ultramin", "worker-minimal", "worker", "worker-standard"]
  .concat("parent", "base").map((tag) => `repo:${tag}`);

const sha256 = (bytes: string | Uint8Array) =>
  createHash("sha256").update(bytes).digest("hex");

type Entry = [name: string, content: string | { link: string }];

interface Change {
  tags?: string[];
  version?: string;
  architecture?: string;
  /** Changes the entries of the archive. */
  entries?: (entries: Entry[]) => Entry[];
}

/** A file like those of `docker save`, with one image. */
async function imageFile(
  { tags: own = tags, version = "1.0", architecture = "amd64", entries }:
    Change = {},
): Promise<Buffer> {
  const layer = "a layer".repeat(2000);
  const config = JSON.stringify({
    architecture,
    config: { Labels: { [versionLabel]: version } },
    rootfs: { diff_ids: [`sha256:${sha256(layer)}`] },
  });
  const name = `${sha256(config)}.json`;
  const list = [{ Config: name, RepoTags: own, Layers: ["one/layer.tar"] }];
  const all: Entry[] = [
    ["one/layer.tar", layer],
    [name, config],
    ["manifest.json", JSON.stringify(list)],
  ];
  const archive = pack();
  for (const [name, content] of entries?.(all) ?? all) {
    if (typeof content === "string") archive.entry({ name }, content);
    else archive.entry({ name, type: "symlink", linkname: content.link });
  }
  archive.finalize();
  const parts: Buffer[] = [];
  for await (const part of archive) parts.push(part);
  return Buffer.concat(parts);
}

test.before.each(async (context) => {
  Object.assign(context, fakeInstance());
  const { engine, instance } = context;
  context.directory = mkdtempSync(join(tmpdir(), "hal9000-images-"));
  context.file = join(context.directory, "images.tar");
  const answer = await imageFile();
  context.exported = () => Readable.from([answer]);
  context.report = '{"stream":"Loaded"}';
  context.imported = undefined;
  for (const name of tags) {
    const image = { Id: `sha256:${name}`, RepoTags: [name], Config: {} };
    engine.images.set(name, image);
  }
  const more = {
    getImages: ({ names }: { names: string[] }) => {
      context.names = names;
      return Promise.resolve(context.exported());
    },
    loadImage: async (stream: Readable) => {
      const parts: Buffer[] = [];
      for await (const part of stream) parts.push(part);
      context.imported = Buffer.concat(parts);
      return context.report;
    },
    listImages: ({ filters }: { filters: { label: string[] } }) =>
      Promise.resolve(
        [...engine.images.values()].filter((image) => {
          const { Labels = {} } = image as { Labels?: Record<string, string> };
          return filters.label.every((text) => {
            const [key = "", value = Labels[key]] = text.split("=");
            return value !== undefined && Labels[key] === value;
          });
        }),
      ),
    modem: {
      followProgress: (report: string, done: (error: Error | null) => void) => {
        const { error } = JSON.parse(report);
        done(error ? new Error(error) : null);
      },
    },
  };
  instance.docker = Object.assign(engine.docker, more) as unknown as Docker;
});

test.after.each(({ directory, end }) => {
  rmSync(directory, { recursive: true });
  end();
});

const save = ({ instance, file }: Context, profiles: string[] = []) =>
  saveImages(instance, file, profiles);

const load = ({ instance, file }: Context) =>
  loadImages(instance, file, { version: "1.0", arch: "amd64" });

async function failureOf(promise: Promise<unknown>): Promise<Failure> {
  return await promise.then(
    () => assert.unreachable("it did not fail"),
    (error) => error,
  ) as Failure;
}

test("saves the images of the instance, and nothing else", async (context) => {
  const { engine, file, directory } = context;
  engine.images.set("other:worker", {});
  engine.images.set("repo:mine", {});
  assert.equal(await save(context), tags);
  assert.equal(context.names, tags);
  assert.equal(readFileSync(file), await imageFile());
  assert.equal(readdirSync(directory), ["images.tar"]);
});

test("saves a profile with the images below it", async (context) => {
  const { engine } = context;
  const missing = await failureOf(save(context, ["python"]));
  assert.is(missing.message, "There is no image repo:worker-debian");
  assert.is(missing.hint, "Build it: claudy profile build python");
  for (const name of ["debian", "python", "node"]) {
    engine.images.set(`repo:worker-${name}`, {});
  }
  await save(context, ["python", "base"]);
  const more = ["repo:worker-debian", "repo:worker-python"];
  assert.equal(context.names, [...tags, ...more]);
});

test("a file whose name ends in .gz is compressed, and loaded like a plain one", async (context) => {
  const plain = await imageFile();
  context.file += ".gz";
  await save(context);
  assert.ok(readFileSync(context.file).length < plain.length / 4);
  assert.equal(await load(context), tags);
  assert.equal(context.imported, plain);
});

test("refuses to save what is not built, and to replace a directory", async (context) => {
  context.engine.images.delete("repo:worker");
  const missing = await failureOf(save(context));
  assert.is(missing.message, "There is no image repo:worker");
  assert.is(missing.hint, "Build it: claudy up");
  mkdirSync(context.file);
  const directory = await failureOf(save(context));
  assert.is(directory.kind, "usage");
  assert.match(directory.message, /images\.tar" is a directory$/);
});

test("keeps the former file if the engine fails meanwhile", async (context) => {
  const { file, directory } = context;
  writeFileSync(file, "former");
  const whole = await imageFile();
  const half = whole.subarray(0, 5000);
  const answers: [Readable, RegExp][] = [
    [
      Readable.from((function* () {
        yield half;
        throw new Error("connection lost");
      })()),
      /^Cannot save images: connection lost$/,
    ],
    [Readable.from([half]), /^Cannot save images: .*end of data/],
    [
      Readable.from([half, '{"message":"no space"}\n']),
      /^Cannot save images: /,
    ],
  ];
  for (const [answer, expected] of answers) {
    context.exported = () => answer;
    const { message } = await failureOf(save(context));
    assert.match(message, expected);
    assert.is(readFileSync(file, "utf8"), "former");
    assert.equal(readdirSync(directory), ["images.tar"]);
  }
});

test("loads a file of Docker 20.10 and Podman, whose images link to shared layers", async (context) => {
  const linked = await imageFile({
    entries: ([layer, config, list]) => [
      ["shared/layer.tar", layer?.[1] ?? ""],
      ["one/layer.tar", { link: "../shared/layer.tar" }],
      config ?? ["", ""],
      list ?? ["", ""],
    ],
  });
  writeFileSync(context.file, linked);
  assert.equal(await load(context), tags);
  assert.equal(context.imported, linked);
});

test("loads a file of containerd, whose layers are compressed", async (context) => {
  const layer = gzipSync("a layer").toString("latin1");
  const blob = `blobs/sha256/${sha256(layer)}`;
  const index = (name: string) =>
    JSON.stringify({
      manifests: [{ annotations: { "io.containerd.image.name": name } }],
    });
  const file = (name: string, path = blob) =>
    imageFile({
      entries: ([, config, list]) => [
        [path, layer],
        config ?? ["", ""],
        [
          "manifest.json",
          String(list?.[1]).replace("one/layer.tar", path),
        ],
        ["index.json", index(name)],
      ],
    });
  writeFileSync(context.file, await file("docker.io/library/repo:worker"));
  assert.equal(await load(context), tags);
  // Such an engine takes its names from the index.
  writeFileSync(context.file, await file("docker.io/library/debian:latest"));
  const { kind, message } = await failureOf(load(context));
  assert.is(kind, "unsafe");
  assert.match(message, /the image "debian:latest"/);
  // Only a blob is named by its digest.
  writeFileSync(context.file, await file("repo:worker", "a/layer.tar"));
  assert.match(
    (await failureOf(load(context))).message,
    /layer.tar has changed/,
  );
});

test("refuses images of others, of another version, and for another machine", async (context) => {
  const cases: [Change, Failure["kind"], string][] = [
    [
      { tags: [...tags, "debian:latest"] },
      "unsafe",
      'The file has the image "debian:latest", which is not one of this instance',
    ],
    [
      { tags: ["repo:mine"] },
      "unsafe",
      'The file has the image "repo:mine", which is not one of this instance',
    ],
    [
      { tags: ["other-profile:mine"] },
      "unsafe",
      'The file has the image "other-profile:mine", which is not one of this instance',
    ],
    [
      { version: "0.9" },
      "failed",
      "repo:worker-ultramin was made by version 0.9, and this is 1.0",
    ],
    [
      { architecture: "arm64" },
      "failed",
      "repo:worker-ultramin is for arm64, and the engine's machine is amd64",
    ],
  ];
  for (const [change, kind, message] of cases) {
    writeFileSync(context.file, await imageFile(change));
    const failure = await failureOf(load(context));
    assert.is(failure.kind, kind);
    assert.is(failure.message, message);
  }
  assert.is(context.imported, undefined);
  const own = ["repo:worker-node", "fake-profile:mine"];
  writeFileSync(context.file, await imageFile({ tags: own }));
  assert.equal(await load(context), own);
});

test("refuses a file that is damaged at any place", async (context) => {
  const whole = await imageFile();
  const damaged: Buffer[] = [
    Buffer.from(""),
    Buffer.from("not an archive"),
    Buffer.alloc(10_240),
    gzipSync(whole).subarray(0, -20),
  ];
  // Behind the last entry there are only zeros.
  const end = whole.length - 1024;
  for (let at = 0; at < end; at += 97) {
    damaged.push(whole.subarray(0, at));
    const changed = Buffer.from(whole);
    changed[at] = (changed[at] ?? 0) ^ 0x10;
    // What archives pad their entries with has no effect.
    if (!isPadding(whole, at)) damaged.push(changed);
  }
  for (const bytes of damaged) {
    writeFileSync(context.file, bytes);
    const failure = await failureOf(load(context));
    assert.match(
      failure.message,
      /^(Cannot load .*images\.tar: |The file has )/,
    );
  }
  assert.is(context.imported, undefined);
});

/** Whether a byte is in the rest of an entry's last block. */
function isPadding(whole: Buffer, place: number): boolean {
  for (let at = 0; at < whole.length;) {
    const size = Number.parseInt(
      whole.toString("latin1", at + 124, at + 136),
      8,
    );
    const behind = at + 512 + (size || 0);
    at += 512 + Math.ceil((size || 0) / 512) * 512;
    if (place < at) return place >= behind;
  }
  return true;
}

test("bounds what a hostile file may hold", async (context) => {
  const many = Array.from({ length: 5001 }, (_, at): Entry => [`${at}`, "x"]);
  const hostile: [Change, RegExp][] = [
    [{ entries: (all) => [...many, ...all] }, /too many files/],
    [
      {
        entries: (all) => [
          ...many.slice(0, 150).map(([name]): Entry => [
            name,
            "x".repeat(500_000),
          ]),
          ...all,
        ],
      },
      /too many files/,
    ],
    [
      { entries: ([, ...rest]) => [["one/layer.tar", { link: "x" }], ...rest] },
      /layer\.tar is missing/,
    ],
    [
      {
        entries: ([, ...rest]) => [
          ["one/layer.tar", { link: "../one/layer.tar" }],
          ...rest,
        ],
      },
      /layer\.tar is missing/,
    ],
    [
      {
        entries: ([layer, config, list]) => [
          layer ?? ["", ""],
          config ?? ["", ""],
          ["manifest.json", String(list?.[1]).replace('["one', '["x","one')],
        ],
      },
      /\.json has other layers/,
    ],
    [
      { entries: (all) => [...all.slice(0, 2), ["manifest.json", "[]"]] },
      /manifest\.json is not of an image/,
    ],
    [
      { entries: (all) => [...all.slice(0, 2), ["manifest.json", "[{"]] },
      /manifest\.json is no JSON/,
    ],
    [
      {
        entries: ([layer, config, list]) => [
          layer ?? ["", ""],
          [config?.[0] ?? "", String(config?.[1]).replace("1.0", "1.1")],
          list ?? ["", ""],
        ],
      },
      /\.json has changed/,
    ],
  ];
  for (const [change, expected] of hostile) {
    writeFileSync(context.file, await imageFile(change));
    assert.match((await failureOf(load(context))).message, expected);
  }
  mkdirSync(`${context.file}.directory`);
  context.file += ".directory";
  assert.is((await failureOf(load(context))).kind, "usage");
  assert.is(context.imported, undefined);
});

test("reports what the engine refuses, and removes replaced images", async (context) => {
  const { engine, file } = context;
  writeFileSync(file, await imageFile());
  context.report = '{"error":"no space left on device"}';
  const { message } = await failureOf(load(context));
  assert.is(message, `Cannot load ${file}: no space left on device`);
  assert.equal(engine.asked, []);
  context.report = "{}";
  // An image without a name, once the engine has given its names away.
  engine.images.set("repo:worker", { Id: "sha256:former", RepoTags: [] });
  await load(context);
  assert.equal(engine.asked, ["rmi sha256:former"]);
});

test("loaded images are up to date without their base image", async ({ engine, instance }) => {
  const options = {
    places: clonePlaces(checkout),
    repository: "repo",
    version: "1.0",
    only: "worker",
    noCache: false,
  };
  const { docker } = instance;
  const inputs = await currentInputs(docker, "amd64", options, ["sha256:b"]);
  assert.is(inputs, undefined);
  assert.equal(await formerBases(docker, "1.0"), []);
  const wanted = await inputsOf("amd64", options, "sha256:b");
  assert.not.equal(wanted, await inputsOf("amd64", options, "sha256:a"));
  for (const [name, digest] of wanted) {
    const Labels = {
      [label.inputs]: digest,
      [label.base]: "sha256:b",
      [versionLabel]: "1.0",
    };
    const image = { Id: name, Labels, Config: { Labels } };
    engine.images.set(`repo:${name}`, image);
    if (name !== "worker-minimal") continue;
    for (const tag of ["worker", "worker-standard"]) {
      engine.images.set(`repo:${tag}`, image);
    }
  }
  assert.equal(await formerBases(docker, "1.0"), ["sha256:b"]);
  const bases = ["sha256:a", "sha256:b"];
  assert.equal(await currentInputs(docker, "amd64", options, bases), wanted);
  const other = { ...options, version: "1.1" };
  assert.is(await currentInputs(docker, "amd64", other, bases), undefined);
});

test.run();
