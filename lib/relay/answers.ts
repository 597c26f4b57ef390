// Finds out whether the relay answers, without sending it a request.

import { connect as connectTls } from "node:tls";
import { openSocket, type Reach } from "../instance/parent-socket.ts";
import { originHeader } from "../std/origin.ts";
import { Gate } from "../std/tls-gate.ts";
import { readAuthorities } from "./authority.ts";
import { apiHost } from "./names.ts";

const answerMs = 5000;

/** Whether it shows a certificate that the sessions trust. */
export function relayAnswers(reach: Reach): Promise<boolean> {
  const authorities = readAuthorities(reach.home).map(({ cert }) => cert);
  return new Promise((resolve) => {
    const socket = openSocket(reach, reach.home.relayService);
    socket.write(originHeader(null));
    const secured = connectTls({
      // Directly on the socket, Deno 2.9.5 sometimes does not end a process after it.
      socket: new Gate(socket),
      servername: apiHost,
      ca: authorities,
    });
    const end = (answer: boolean) => {
      clearTimeout(late);
      secured.destroy();
      socket.destroy();
      resolve(answer);
    };
    const late = setTimeout(() => end(false), answerMs);
    socket.on("error", () => end(false));
    secured.on("error", () => end(false));
    secured.on("secureConnect", () => end(secured.authorized));
  });
}
