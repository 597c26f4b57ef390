// empty-agent SOCKET [MODE]: an ssh-agent without keys, for any user who may connect.

import { Buffer } from "node:buffer";
import { chmodSync, mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { dirname } from "node:path";
import process from "node:process";

const [, , path = "", mode = "600"] = process.argv;

/** SSH_AGENT_IDENTITIES_ANSWER with no key: draft-ietf-sshm-ssh-agent. */
const answer = Buffer.from([0, 0, 0, 5, 12, 0, 0, 0, 0]);

mkdirSync(dirname(path), { recursive: true });
createServer((client) => {
  client.on("data", () => client.write(answer)).on("error", () => {});
}).listen(path, () => chmodSync(path, Number.parseInt(mode, 8)));
