// Creates a sample project for users who do not have one.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const text = `# Sample project

Created by \`claudy up\` for the first worker. You can delete it.
`;

/** Creates the sample project below `home` if it is missing; returns its directory. */
export function ensureSample(home: string): string {
  const directory = join(home, "hal9000-sample");
  mkdirSync(directory, { recursive: true });
  const readme = join(directory, "README.md");
  if (!existsSync(readme)) writeFileSync(readme, text);
  return directory;
}
