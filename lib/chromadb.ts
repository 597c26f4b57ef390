// The shared ChromaDB: how it is run, and whether it answers.

import type { ChildSpec } from "./supervisor.ts";

/** Workers share the namespace; nobody outside it is served. */
const address = "127.0.0.1";

export function chromadbChild(port: number, logFile: string): ChildSpec {
  return {
    name: "chromadb",
    command: [
      "deno",
      "run",
      "--allow-all",
      "--no-config",
      "--no-lock",
      "--quiet",
      "/opt/chromadb/chroma.mjs",
      "run",
      "--path",
      "/data/chromadb",
      "--host",
      address,
      "--port",
      String(port),
    ],
    env: { ANONYMIZED_TELEMETRY: "False" },
    logFile,
  };
}

export async function chromadbAnswers(port: number): Promise<boolean> {
  try {
    const response = await fetch(
      `http://${address}:${port}/api/v2/heartbeat`,
      { signal: AbortSignal.timeout(2000) },
    );
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}
