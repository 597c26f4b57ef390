// Everything that a cold spawn needs, loaded with one import and only when needed.

export { runAttached } from "./attached.ts";
export { projectImage } from "../image/profiles.ts";
export { openInstance } from "../instance/open.ts";
export { resolveProject } from "../project/project.ts";
export { readSecrets } from "./secrets.ts";
export { spawnWorker } from "./spawn.ts";
