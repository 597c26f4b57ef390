// How a server's process is met: it is started, introduced to, and has answered.

import {
  isJSONRPCErrorResponse,
  isJSONRPCResultResponse,
  type JSONRPCMessage,
  type JSONRPCRequest,
  LATEST_PROTOCOL_VERSION,
} from "@modelcontextprotocol/sdk/types.js";
import type { StdioTransport } from "./stdio.ts";

export type Params = JSONRPCRequest["params"];

/** Of a client that is not here. */
const ownParams: Params = {
  protocolVersion: LATEST_PROTOCOL_VERSION,
  capabilities: {},
  clientInfo: { name: "hal9000-gateway", version: "1" },
};

/** A process that has not introduced itself by then speaks something else. */
const timeoutMs = 30_000;

export interface Listener {
  /** Hears of the process that was started. */
  started(pid: number): void;
  /** Hears all that it says besides. */
  heard(message: JSONRPCMessage): void;
  /** Hears when it has ended. */
  ended(): void;
}

/**
 * Starts a process as one for the client with these parameters, and gives what it says
 * of itself; throws with the reason where it does not come to that.
 */
export async function introduce(
  transport: StdioTransport,
  params: Params | undefined,
  { started, heard, ended }: Listener,
): Promise<Record<string, unknown>> {
  let late: ReturnType<typeof setTimeout> | undefined;
  const answer = new Promise<Record<string, unknown>>((resolve, reject) => {
    const fail = (what: string) => reject(new Error(`The MCP server ${what}`));
    transport.onmessage = (message) => {
      if (isJSONRPCResultResponse(message) && message.id === 0) {
        resolve(message.result);
      } else if (isJSONRPCErrorResponse(message) && message.id === 0) {
        fail(`says: ${message.error.message}`);
      } else heard(message);
    };
    transport.onclose = () => {
      fail(`ended as it started: ${transport.end}`);
      ended();
    };
    late = setTimeout(
      () => fail(`did not answer within ${timeoutMs / 1000} s`),
      timeoutMs,
    );
  });
  answer.catch(() => {}); // where the start itself throws
  try {
    await transport.start();
    if (transport.pid !== undefined) started(transport.pid);
    await transport.send({
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: params ?? ownParams,
    });
    const welcome = await answer;
    await transport.send({
      jsonrpc: "2.0",
      method: "notifications/initialized",
    });
    return welcome;
  } finally {
    clearTimeout(late);
  }
}
