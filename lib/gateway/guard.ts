// Filters a client's messages to a server with known tools. Only calls with valid
// arguments, and the few methods that take no names, reach the process. All else is
// rejected here.

import {
  ErrorCode,
  isJSONRPCNotification,
  isJSONRPCRequest,
  type JSONRPCMessage,
} from "@modelcontextprotocol/sdk/types.js";
import * as v from "valibot";
import type { Tool, Tools } from "./shipped.ts";

/** Methods that name nothing on the host. */
const plainMethods = ["initialize", "ping", "tools/list"];

const plainNotifications = [
  "notifications/initialized",
  "notifications/cancelled",
  "notifications/progress",
  "notifications/roots/list_changed",
];

/** A rejected message, with its JSON-RPC error code. */
export class Rejected extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * Returns the message to pass on; undefined for a notification that these servers
 * do not use. Throws Rejected for a rejected request.
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
    // Pass on only what was checked.
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
  if (unknown) throw refuse(`unknown argument; it accepts ${listOf(tool)}`);
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
