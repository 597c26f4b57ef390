// Runs the program of helper containers that make and read copies of projects, for the fake
// engine: in this process, with the mounts' sources in place of their targets.

import {
  type Answer,
  perform,
  type Request,
} from "../../lib/workspace/git/workspace.ts";
import type { FakeContainer } from "./fake-engine.ts";

interface Mount {
  Source: string;
  Target: string;
}

export async function runWorkspace(
  line: string,
  { spec }: FakeContainer,
): Promise<string> {
  const mounts = (spec.HostConfig?.Mounts ?? []) as Mount[];
  const request = JSON.parse(line, (_, value) => {
    if (typeof value !== "string") return value;
    const mount = mounts.find(({ Target }) =>
      value === Target || value.startsWith(`${Target}/`)
    );
    return mount ? mount.Source + value.slice(mount.Target.length) : value;
  }) as Request;
  const answer: Answer = await perform(request, () => {});
  return JSON.stringify(answer);
}
