// Bundles each script into one file that needs only Deno.

import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  rm,
  writeFile,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, isAbsolute, join, relative } from "node:path";
import type { Plugin } from "esbuild";
import { sourceDigest } from "../std/build-digest.ts";

const shebang =
  "#!/usr/bin/env -S deno run --allow-all --no-lock --no-config --quiet --ext=js";

/**
 * A container's program mostly starts once: writing a code cache costs more than it saves. nsenter
 * listens with SO_REUSEPORT, which Deno calls unstable.
 */
const containerShebang = `${shebang} --no-code-cache --unstable-net`;

/** For an installed package, whose Deno is not on PATH; the launcher is beside it. */
const launcherShebang =
  `#!/usr/bin/env -S sh -c 's=$(readlink -f "$0"); exec "\${s%/*}/launch" "$s" "$@"'`;

/**
 * Node's CommonJS scope for the modules in the bundle. `require` is created on first use,
 * because Deno takes 10 ms to load node:module.
 */
const commonJsScope = `let __nodeRequire;
const require = (id) => (__nodeRequire ??= process.getBuiltinModule("node:module")
  .createRequire(import.meta.url))(id);
const __filename = import.meta.filename, __dirname = import.meta.dirname;`;

/** Scripts that are only useful on the host, and not included in the parent's image. */
const hostOnly = [
  "build",
  "build-images",
  "engine",
  "mcp-gateway",
  "migrate",
  "rollback",
  "up",
];

/** Scripts that only make sense in a clone. */
const developmentOnly = ["build", "up"];

/** Runs every 10 s: with a code cache it takes 130 ms of CPU instead of 165. */
const healthcheck = "lib/parent/healthcheck.ts";

/** Programs that run only in containers, as /scripts/<name>. */
const containerPrograms = [
  "lib/egress/proxy/egress-proxy.ts",
  "lib/gateway/services/services.ts",
  "lib/helper/look-at-path.ts",
  "lib/helper/look-at-processes.ts",
  "lib/migration/mover/mover.ts",
  "lib/net/net.ts",
  "lib/parent/connect-socket.ts",
  healthcheck,
  "lib/parent/parent-entrypoint.ts",
  "lib/relay/relay/anthropic-relay.ts",
  "lib/nsenter/privileged/nsenter.ts",
  "lib/workspace/git/workspace.ts",
];

/** The sources of all scripts; with `relocatable`, only those that need no checkout. */
export async function scriptSources(
  root: string,
  { relocatable = false } = {},
): Promise<string[]> {
  const files = await readdir(join(root, "scripts"));
  return files.filter((file) => file.endsWith(".ts"))
    .filter((file) => !relocatable || !hostOnly.includes(basename(file, ".ts")))
    .map((file) => join("scripts", file))
    .sort();
}

/** The sources of the programs in the parent's image. */
export async function imageSources(root: string): Promise<string[]> {
  const scripts = await scriptSources(root, { relocatable: true });
  return [...scripts, ...containerPrograms];
}

/**
 * Replaces `directory` by a `<name>.js` for each source. Each file is self-contained, or
 * with `split` loads shared chunks on demand. With `launched` they are started by the
 * launcher, which has to be copied to `directory`.
 */
export async function bundleScripts(
  root: string,
  sources: string[],
  directory: string,
  { split = false, launched = false } = {},
): Promise<void> {
  const esbuild = loadEsbuild(root);
  const result = await esbuild.build({
    absWorkingDir: root,
    entryPoints: sources.map((source) => ({
      in: source,
      out: basename(source, ".ts"),
    })),
    outdir: directory,
    bundle: true,
    splitting: split,
    minifyWhitespace: split,
    chunkNames: "chunks/[name]-[hash]",
    platform: "node",
    format: "esm",
    target: "node22",
    banner: { js: commonJsScope },
    define: { bundledDigest: JSON.stringify(sourceDigest(root)) },
    // zx's ESM build loads its CommonJS build from a path that does not exist in a bundle.
    // jsonc-parser's CommonJS build loads its parts by calls that esbuild does not follow.
    alias: {
      "zx/core": "./node_modules/zx/build/core.cjs",
      "jsonc-parser": "./node_modules/jsonc-parser/lib/esm/main.js",
    },
    external: ["esbuild"],
    plugins: [withoutUnusedTransports, withLazyTransports, withoutDebugging],
    logLevel: "error",
    write: false,
  });
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  const inContainers = new Set(
    sources.filter((source) => containerPrograms.includes(source))
      .filter((source) => source !== healthcheck)
      .map((source) => basename(source, ".ts")),
  );
  for (const file of result.outputFiles) {
    const bundled = file.text.replace(lazyImport, "import(String($1))");
    const first = launched
      ? launcherShebang
      : inContainers.has(basename(file.path, ".js"))
      ? containerShebang
      : shebang;
    const text = dirname(file.path) === directory
      ? `${first}\n${bundled.replace(/^#!.*\n/, "")}`
      : bundled; // a shared chunk
    await mkdir(dirname(file.path), { recursive: true });
    await writeFile(file.path, text);
    await chmod(file.path, 0o755);
  }
}

/**
 * Deno reads and parses at its start whatever is imported by a literal path, even if the
 * import never runs: for claudy --version, 1 MB and a fifth of its CPU time.
 */
const lazyImport = /\bimport\(("\.[^"]+")\)/g;

/** Bundles what an installation runs, and the launcher, into `directory`. */
export async function bundleInstalled(
  root: string,
  directory: string,
): Promise<void> {
  const sources = (await scriptSources(root))
    .filter((source) => !developmentOnly.includes(basename(source, ".ts")));
  await bundleScripts(root, sources, directory, {
    split: true,
    launched: true,
  });
  await copyFile(join(root, "scripts", "launch"), join(directory, "launch"));
}

/** Bundles ChromaDB's server, which has many modules; its bindings stay outside. */
export async function bundleChromadb(
  packageRoot: string,
  to: string,
): Promise<void> {
  await bundleModule(join(packageRoot, "dist", "cli.mjs"), to);
}

/** Bundles one ES module of a package; native bindings stay outside. */
async function bundleModule(entry: string, to: string): Promise<void> {
  await loadEsbuild(entry).build({
    entryPoints: [entry],
    outfile: to,
    bundle: true,
    platform: "node",
    format: "esm",
    banner: { js: commonJsScope },
    logLevel: "error",
  });
}

/** A bundled script imports packages only while the working directory is the checkout. */
function loadEsbuild(from: string): typeof import("esbuild") {
  return createRequire(join(from, "package.json"))("esbuild");
}

/**
 * Leaves out gRPC, which dockerode imports for BuildKit sessions that are never used here:
 * it takes half of the bundle's size and of its start time. Engines are reached over the
 * system's ssh.
 */
const withoutUnusedTransports: Plugin = {
  name: "without-unused-transports",
  setup(build) {
    const unused = /^(@grpc\/grpc-js|@grpc\/proto-loader|protobufjs|ssh2)$/;
    build.onResolve({ filter: unused }, ({ path }) => ({
      path,
      namespace: "unused",
    }));
    build.onLoad({ filter: /.*/, namespace: "unused" }, () => ({
      contents: "module.exports = {};",
    }));
  },
};

/**
 * Loads dockerode's modules for TLS and build contexts only when they are
 * used, because most commands do not need them.
 */
const withLazyTransports: Plugin = {
  name: "with-lazy-transports",
  setup(build) {
    const seldom = /^(https|tar-fs|@balena\/dockerignore)$/;
    build.onResolve({ filter: seldom }, async (request) => {
      const { path, importer, resolveDir, kind, pluginData } = request;
      const ours = /node_modules\/docker(ode|-modem)\/lib\//.test(importer);
      if (!ours || pluginData === "resolved") return undefined;
      const found = await build.resolve(path, {
        importer,
        resolveDir,
        kind,
        pluginData: "resolved",
      });
      const root = build.initialOptions.absWorkingDir ?? "/";
      return {
        // The path is part of the bundle, which must not depend on the checkout's location,
        // nor on the working directory. A module of Node has no path.
        path: isAbsolute(found.path) ? relative(root, found.path) : found.path,
        namespace: "lazy",
        pluginData: found.path,
      };
    });
    build.onLoad({ filter: /.*/, namespace: "lazy" }, ({ pluginData }) => ({
      resolveDir: dirname(pluginData),
      contents: `const load = () => require(${JSON.stringify(pluginData)});
module.exports = new Proxy(function () {}, {
  get: (_, key) => load()[key],
  apply: (_, self, args) => load().apply(self, args),
});`,
    }));
  },
};

/**
 * docker-modem describes each request and its agent with all sockets for its debugging output,
 * also when that is off: most of the CPU time of a call.
 */
const withoutDebugging: Plugin = {
  name: "without-debugging",
  setup(build) {
    build.onResolve(
      { filter: /^(debug|util)$/ },
      ({ path, importer }) =>
        /docker-modem\/lib\/modem\.js$/.test(importer)
          ? { path, namespace: "silent" }
          : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: "silent" }, ({ path }) => ({
      contents: path === "util"
        ? "module.exports = { inspect: () => '' };"
        : "module.exports = () => () => {};",
    }));
  },
};
