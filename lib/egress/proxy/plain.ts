// Passes on one HTTP request that is not encrypted, and its reply.

import {
  Agent,
  type IncomingMessage,
  request as requestServer,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import { messageOf } from "../../std/errors.ts";
import { type Target, targetText } from "../target.ts";
import { finish, responseText } from "./answer.ts";
import { forwardedHeaders } from "./headers.ts";
import { proxyAuthorization } from "./through.ts";

export function passOn(
  request: IncomingMessage,
  response: ServerResponse,
  { target, path, server, via }: {
    target: Target;
    path: string;
    server: Socket;
    /** The user's own proxy, if it is connected to that. */
    via: URL | undefined;
  },
): void {
  const { method = "" } = request;
  const agent = new Agent({ keepAlive: false });
  Object.assign(agent, { createConnection: () => server });
  const passed = requestServer({
    agent,
    host: target.host,
    port: target.port,
    method,
    path: via ? `http://${targetText(target)}${path}` : path,
    setHost: false,
    headers: [
      "Host",
      hostHeader(target),
      ...forwardedHeaders(request.rawHeaders),
      ...(via ? proxyAuthorization(via) : []),
      "Connection",
      "close",
    ] as unknown as Record<string, string>,
  });
  passed.on("response", (answer) => {
    const status = answer.statusCode ?? 0;
    // Of another protocol, or a number that writeHead() does not accept.
    if (status < 200) {
      return void passed.destroy(new Error("its reply is not valid"));
    }
    response.writeHead(
      status,
      // Not its message, in which the parser accepts characters that writeHead() does not.
      forwardedHeaders(answer.rawHeaders) as unknown as Record<
        string,
        string
      >,
    );
    answer.pipe(response);
    answer.on("error", () => request.socket.destroy());
  });
  const fail = (error: Error) => {
    server.destroy();
    if (response.headersSent) return void request.socket.destroy();
    const place = targetText(target);
    const sentence = `${place} does not answer: ${messageOf(error)}`;
    request.unpipe(passed);
    request.resume();
    finish(request.socket, responseText(502, sentence));
  };
  passed.on("error", fail);
  passed.on("upgrade", () => fail(new Error("its reply is not valid")));
  response.on("close", () => server.destroy());
  request.pipe(passed);
}

function hostHeader(target: Target): string {
  return targetText(target).replace(/:80$/, "");
}
