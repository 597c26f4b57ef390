// All that a spawn needs, to be loaded at once and only when it comes to that.

export { runAttached } from "./attached.ts";
export { projectImage } from "../image/profiles.ts";
export { openInstance } from "../instance/open.ts";
export { resolveProject } from "../project/project.ts";
export { readSecrets } from "./secrets.ts";
export { spawnWorker } from "./spawn.ts";
