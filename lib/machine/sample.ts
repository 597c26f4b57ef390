// A first project for who has none at hand.

import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const text = `# Sample project

Made by \`make up\`, for a first worker to work on. Delete it when you like.
`;

/** The sample's directory below `home`, made if it is not there. */
export function ensureSample(home: string): string {
  const directory = join(home, "hal9000-sample");
  mkdirSync(directory, { recursive: true });
  const readme = join(directory, "README.md");
  if (!existsSync(readme)) writeFileSync(readme, text);
  return directory;
}
