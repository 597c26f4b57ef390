// What of a client's messages reaches a server whose tools are known: calls whose
// arguments are what the tool accepts, and the few methods that take no names. All else
// is refused here, before the process sees it.

import {
  ErrorCode,
  isJSONRPCNotification,
  isJSONRPCRequest,
  type JSONRPCMessage,
} from "@modelcontextprotocol/sdk/types.js";
import * as v from "valibot";
import type { Tool, Tools } from "./shipped.ts";

/** Without names of anything on the host. */
const plainMethods = ["initialize", "ping", "tools/list"];

const plainNotifications = [
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
  "notifications/roots/list_changed",
];

/** A message that is refused, as JSON-RPC tells it. */
export class Rejected extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * What is passed on of a message: nothing of a notification that no server of these
 * expects. Throws Rejected for a request that is refused.
 */
export function guarded(
  tools: Tools,
  message: JSONRPCMessage,
): JSONRPCMessage | undefined {
  if (isJSONRPCRequest(message)) {
    if (plainMethods.includes(message.method)) return message;
    if (message.method !== "tools/call") {
      throw new Rejected(ErrorCode.MethodNotFound, "Method not found");
    }
    const { name, arguments: given, _meta } = message.params ?? {};
    const accepted = acceptedArguments(tools, name, given ?? {});
    // Only what was checked.
    const params = { name, arguments: accepted, ...(_meta ? { _meta } : {}) };
    return { ...message, params };
  }
  if (!isJSONRPCNotification(message)) return message;
  return plainNotifications.includes(message.method) ? message : undefined;
}

function acceptedArguments(
  tools: Tools,
  name: unknown,
  given: unknown,
): Record<string, unknown> {
  const tool = typeof name === "string" && Object.hasOwn(tools, name)
    ? tools[name]
    : undefined;
  if (!tool) throw invalid("Unknown tool");
  const refuse = (what: string) => invalid(`${name}: ${what}`);
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw refuse("arguments must be an object");
  }
  const unknown = Object.keys(given)
    .some((key) => !Object.hasOwn(tool.arguments, key));
  if (unknown) throw refuse(`unknown argument; it has ${listOf(tool)}`);
  const parsed = v.safeParse(v.object(tool.arguments), given);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    const key = v.getDotPath(issue) ?? "";
    const isMissing = !Object.hasOwn(given, key);
    throw refuse(`"${key}" ${isMissing ? "is missing" : issue.message}`);
  }
  const refusal = tool.refusal?.(parsed.output);
  if (refusal !== undefined) throw refuse(refusal);
  return parsed.output;
}

function listOf(tool: Tool): string {
  return Object.keys(tool.arguments).join(", ") || "none";
}

function invalid(message: string): Rejected {
  return new Rejected(ErrorCode.InvalidParams, message);
}
