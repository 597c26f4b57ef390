// Creates a sample project for users who do not have one.

import { lstatSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { plainText } from "../std/plain-file.ts";

const text = `# Sample project

Created by \`claudy up\` for the first worker. You can delete it.
`;

export const samplePath = (home: string) => join(home, "hal9000-sample");

/** Creates the sample project below `home` if it is missing; returns its directory. */
export function ensureSample(home: string): string {
  const directory = samplePath(home);
  mkdirSync(directory, { recursive: true });
  try {
    // A worker may have replaced it by a link, which must not be followed.
    writeFileSync(join(directory, "README.md"), text, { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  return directory;
}

/** Whether the sample project exists and holds only what ensureSample() has written. */
export function isSampleUnused(home: string): boolean {
  const directory = samplePath(home);
  const stat = lstatSync(directory, { throwIfNoEntry: false });
  return stat?.isDirectory() === true &&
    readdirSync(directory).join() === "README.md" &&
    plainText(join(directory, "README.md"), { maxBytes: 1024 }) === text;
}
