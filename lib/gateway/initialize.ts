// Starts a server's process and initializes it.

import {
  isJSONRPCErrorResponse,
  isJSONRPCResultResponse,
  type JSONRPCMessage,
  type JSONRPCRequest,
  LATEST_PROTOCOL_VERSION,
} from "@modelcontextprotocol/sdk/types.js";
import type { StdioTransport } from "./stdio.ts";

export type Params = JSONRPCRequest["params"];

/** For a start without a client. */
const ownParams: Params = {
  protocolVersion: LATEST_PROTOCOL_VERSION,
  capabilities: {},
  clientInfo: { name: "hal9000-gateway", version: "1" },
};

/** Time for the process to answer `initialize`. */
const timeoutMs = 30_000;

export interface Listener {
  /** Called when the process has started. */
  started(pid: number): void;
  /** Called for every other message from the process. */
  received(message: JSONRPCMessage): void;
  /** Called when the process has ended. */
  ended(): void;
}

/**
 * Starts a process with a client's `initialize` parameters. Returns its result;
 * throws with the reason if it fails.
 */
export async function initialize(
  transport: StdioTransport,
  params: Params | undefined,
  { started, received, ended }: Listener,
): Promise<Record<string, unknown>> {
  let late: ReturnType<typeof setTimeout> | undefined;
  const answer = new Promise<Record<string, unknown>>((resolve, reject) => {
    const fail = (what: string) => reject(new Error(`The MCP server ${what}`));
    transport.onmessage = (message) => {
      if (isJSONRPCResultResponse(message) && message.id === 0) {
        resolve(message.result);
      } else if (isJSONRPCErrorResponse(message) && message.id === 0) {
        fail(`rejected initialize: ${message.error.message}`);
      } else received(message);
    };
    transport.onclose = () => {
      fail(`ended during its start: ${transport.end}`);
      ended();
    };
    late = setTimeout(
      () => fail(`did not answer within ${timeoutMs / 1000} s`),
      timeoutMs,
    );
  });
  answer.catch(() => {}); // if start() throws first
  try {
    await transport.start();
    if (transport.pid !== undefined) started(transport.pid);
    await transport.send({
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: params ?? ownParams,
    });
    const result = await answer;
    await transport.send({
      jsonrpc: "2.0",
      method: "notifications/initialized",
    });
    return result;
  } finally {
    clearTimeout(late);
  }
}
