// --mcp and --no-mcp, of commands that start Claude.

import type { Command } from "cac";
import type { Choice } from "../mcp/offer.ts";

export interface McpChoice {
  mcp?: unknown;
}

/** The options of commands that start Claude. */
export function addMcpChoice(command: Command): Command {
  return command
    .option(
      "--mcp [names]",
      "Only these of the host's MCP servers, commas between; or all",
    )
    .option("--no-mcp", "None of the host's MCP servers");
}

/** Undefined where no names were said: cac gives true there. */
export function mcpChoice({ mcp }: McpChoice): Choice | undefined {
  if (mcp === undefined || mcp === true) return undefined;
  if (mcp === false) return false;
  const names = String(mcp).split(",").map((name) => name.trim());
  return names.includes("all") ? true : names.filter(Boolean);
}
