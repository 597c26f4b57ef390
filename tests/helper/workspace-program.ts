// Runs the program of helper containers that make and read copies of projects, for the fake
// engine: in this process, with the mounts' sources in place of their targets.

import { hostOf } from "../../lib/workspace/git/host.ts";
import {
  type Answer,
  perform,
  type Request,
} from "../../lib/workspace/git/workspace.ts";
import type { Caller, FakeContainer } from "./fake-engine.ts";

interface Mount {
  Source: string;
  Target: string;
}

export async function runWorkspace(
  line: string,
  { spec }: FakeContainer,
  { tell, nextLine }: Caller,
): Promise<string> {
  const mounts = (spec.HostConfig?.Mounts ?? []) as Mount[];
  const request = JSON.parse(line, (_, value) => {
    if (typeof value !== "string") return value;
    const mount = mounts.find(({ Target }) =>
      value === Target || value.startsWith(`${Target}/`)
    );
    return mount ? mount.Source + value.slice(mount.Target.length) : value;
  }) as Request;
  const host = hostOf((message) => tell(JSON.stringify(message)), nextLine);
  const answer: Answer = await perform(request, host);
  return JSON.stringify(answer);
}
