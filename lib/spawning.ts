// All that a spawn needs, to be loaded at once and only when it comes to that.

export { runAttached } from "./attached.ts";
export { openInstance } from "./instance.ts";
export { readSecrets } from "./secrets.ts";
export { spawnWorker } from "./spawn.ts";
