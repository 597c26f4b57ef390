// Measures and removes each path; prints the number of paths that were measured.

import process from "node:process";
import { measureTrees, removeTree } from "../../lib/std/remove-tree.ts";

for (const path of process.argv.slice(2)) {
  process.stdout.write(`${(await measureTrees([path])).size}\n`);
  await removeTree(path);
}
