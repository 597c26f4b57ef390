// The tmux windows of the dashboard: one per worker, which attaches to its session when
// it is first viewed.

import { windowScript } from "../../session/tmux.ts";
import { shellQuoted } from "../../std/text.ts";
import type { WorkerState } from "../../worker/workers.ts";
import { dashboardSession } from "./server.ts";
import type { TmuxControl } from "./tmux-control.ts";

export interface Window {
  /** tmux's id of the window. */
  id: string;
  index: number;
}

const idle = "exec tail -f /dev/null";

type Control = Pick<TmuxControl, "ask">;

/** Creates and closes windows so that each worker has one; returns them by worker id. */
export async function arrangeWindows(
  control: Control,
  workers: WorkerState[],
): Promise<Map<string, Window>> {
  const windows = await listWindows(control);
  for (const [worker, { id }] of windows) {
    if (workers.some((known) => known.id === worker)) continue;
    await control.ask("kill-window", "-t", id).catch(() => {});
    windows.delete(worker);
  }
  for (const { id: worker, name } of workers) {
    if (windows.has(worker)) continue;
    const [line = ""] = await control.ask(
      "new-window",
      ...["-d", "-P", "-F", "#{window_id} #{window_index}"],
      ...["-t", `=${dashboardSession}:`, "-n", name],
      // Nothing runs in the worker before the window is viewed.
      idle,
    );
    const [id = "", index] = line.split(" ");
    await control.ask("set", "-w", "-t", id, "@worker", worker);
    await control.ask("set", "-w", "-t", id, "remain-on-exit", "on");
    windows.set(worker, { id, index: Number(index) });
  }
  return windows;
}

async function listWindows(control: Control): Promise<Map<string, Window>> {
  const format = "#{@worker} #{window_id} #{window_index}";
  const target = `=${dashboardSession}`;
  const lines = await control.ask("list-windows", "-t", target, "-F", format);
  return new Map(
    lines.map((line) => line.split(" "))
      .filter(([worker]) => worker !== "")
      .map(([worker = "", id = "", index]) => [
        worker,
        { id, index: Number(index) },
      ]),
  );
}

/** Attaches a window to its worker, unless it is attached. */
export async function fillWindow(
  control: Control,
  window: string,
): Promise<void> {
  const format = "#{@worker} #{@filled} #{pane_dead}";
  const [line = ""] = await control.ask(
    "list-panes",
    "-t",
    window,
    "-F",
    format,
  );
  const [worker = "", filled, dead] = line.split(" ");
  if (!/^[0-9a-f]{64}$/.test(worker) || (filled === "1" && dead === "0")) {
    return;
  }
  await control.ask("set", "-w", "-t", window, "@filled", "1");
  await control.ask(
    "respawn-pane",
    "-k",
    "-t",
    window,
    `exec docker exec -it --env=TERM=tmux-256color ${worker} sh -c ${
      shellQuoted(windowScript)
    }`,
  );
}

/** Empties the windows of these workers, and returns the workers that had one. */
export async function emptyWindows(
  control: Control,
  workers: Set<string>,
): Promise<string[]> {
  const emptied: string[] = [];
  const format = "#{@worker} #{window_id} #{@filled}";
  const target = `=${dashboardSession}`;
  for (
    const line of await control.ask("list-windows", "-t", target, "-F", format)
  ) {
    const [worker = "", id = "", filled] = line.split(" ");
    if (filled !== "1" || !workers.has(worker)) continue;
    await control.ask("set", "-w", "-t", id, "@filled", "0");
    await control.ask("respawn-pane", "-k", "-t", id, idle);
    emptied.push(worker);
  }
  return emptied;
}
