// Checks that imports in lib go only from a folder to those above it in lib/README.md, and
// are never circular. Prints the order of the folders.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import process from "node:process";

const root = join(import.meta.dirname ?? "", "..");
const readme = readFileSync(join(root, "lib/README.md"), "utf8");
const order = [...readme.matchAll(/^\d+\. `([^`]+)`/gm)].map(([, name]) =>
  String(name)
);
const importPattern = /(?:from|import)\s*\(?\s*"(\.[^"]+\.ts)"/g;

const files = ["lib", "scripts"].flatMap((directory) =>
  readdirSync(join(root, directory), { recursive: true })
    .map((name) => join(directory, String(name)))
    .filter((name) => name.endsWith(".ts"))
);
const imports = new Map(files.map((file) => {
  const text = readFileSync(join(root, file), "utf8");
  const targets = [...text.matchAll(importPattern)].map(([, target]) =>
    relative(root, join(root, dirname(file), String(target)))
  );
  return [file, targets];
}));

/** The position of a file's folder; scripts come last. */
function floorOf(file: string): number {
  const [top, folder = ""] = file.split("/");
  return top === "scripts" ? order.length : order.indexOf(folder);
}

const done = new Set<string>();

function circleFrom(file: string, way: string[] = []): string[] | undefined {
  if (done.has(file)) return undefined;
  if (way.includes(file)) return [...way.slice(way.indexOf(file)), file];
  for (const next of imports.get(file) ?? []) {
    const found = circleFrom(next, [...way, file]);
    if (found) return found;
  }
  done.add(file);
  return undefined;
}

const faults: string[] = [];
for (const [file, targets] of imports) {
  if (floorOf(file) === -1) faults.push(`${file}: lib/README.md has no folder`);
  for (const target of targets) {
    if (floorOf(target) > floorOf(file)) {
      faults.push(
        `${file} imports ${target}, which is below it in lib/README.md`,
      );
    }
  }
}
const circle = files.map((file) => circleFrom(file)).find(Boolean);
if (circle) faults.push(`A circle: ${circle.join(" > ")}`);

process.stdout.write(`Folders of lib: ${order.join(", ")}\n`);
for (const fault of faults) process.stderr.write(`error: ${fault}\n`);
process.exitCode = faults.length > 0 ? 1 : 0;
