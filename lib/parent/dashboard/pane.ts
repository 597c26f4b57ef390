// The dashboard's pane in tmux: what is written to its terminal is shown, and keys that
// are pressed in it are read from there.

// Not zx: cat runs as long as the dashboard, and its output is read in chunks.
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { dashboardSession } from "./server.ts";
import type { TmuxControl } from "./tmux-control.ts";

export class Pane {
  readonly tty: string;
  readonly width: number;
  readonly height: number;
  /** The current content, to avoid redrawing it. */
  #shown = "";

  constructor(tty: string, width: number, height: number) {
    this.tty = tty;
    this.width = width;
    this.height = height;
  }

  /** Undefined if it was closed. */
  static async find(
    control: Pick<TmuxControl, "ask">,
  ): Promise<Pane | undefined> {
    const format = "#{@pane} #{pane_tty} #{pane_width} #{pane_height}";
    const target = `=${dashboardSession}:`;
    const lines = await control
      .ask("list-panes", "-s", "-t", target, "-F", format);
    const [, tty, width, height] =
      lines.map((line) => line.split(" ")).find(([name]) => name === "board") ??
        [];
    return tty ? new Pane(tty, Number(width), Number(height)) : undefined;
  }

  /** Shows as many lines as the pane has. */
  show(lines: string[]): void {
    // The alternate screen, where the mouse wheel does not scroll; hide the cursor,
    // disable wrapping. Each line is cleared first: after its last column, the cursor
    // still stands on that.
    const text = `\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H${
      lines.map((line) => `\x1b[K${line}`).join("\r\n")
    }`;
    if (text !== this.#shown && this.#write(text)) this.#shown = text;
  }

  ring(): void {
    this.#write("\x07");
  }

  /** False if the pane was closed; an event follows. */
  #write(text: string): boolean {
    try {
      writeFileSync(this.tty, text);
      return true;
    } catch {
      return false;
    }
  }
}

/**
 * Calls `act` with the bytes of each key that is pressed in a terminal, until `stop` is
 * aborted or the terminal is closed. cat reads, because a read of this process from a
 * terminal cannot be cancelled.
 */
export async function readKeys(
  tty: string,
  stop: AbortSignal,
  act: (keys: string) => void,
): Promise<void> {
  const reader = spawn("cat", [tty], {
    stdio: ["ignore", "pipe", "ignore"],
    signal: stop,
  });
  const ended = new Promise<void>((resolve) => {
    reader.on("close", resolve).on("error", () => resolve());
  });
  reader.stdout.setEncoding("utf8").on("data", act);
  await ended;
}
