// Creates a sample project for users who do not have one.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

const text = `# Sample project

Created by \`claudy up\` for the first worker. You can delete it.
`;

export const samplePath = (home: string) => join(home, "hal9000-sample");

/** Creates the sample project below `home` if it is missing; returns its directory. */
export function ensureSample(home: string): string {
  const directory = samplePath(home);
  mkdirSync(directory, { recursive: true });
  const readme = join(directory, "README.md");
  if (!existsSync(readme)) writeFileSync(readme, text);
  return directory;
}

/** Whether the sample project exists and holds only what ensureSample() has written. */
export function isSampleUnused(home: string): boolean {
  const directory = samplePath(home);
  return existsSync(directory) &&
    readdirSync(directory).join() === "README.md" &&
    readFileSync(join(directory, "README.md"), "utf8") === text;
}
