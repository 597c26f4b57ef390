// A stand-in for the token endpoint of Claude's OAuth: each refresh token can be used
// once.
//
// token-stub.ts CERTIFICATE KEY RECORD SECONDS: listens on 127.0.0.1:443 and
// appends a line of JSON to RECORD for each request and each failed handshake.
// The first refresh token is "refresh-0"; tokens expire after SECONDS.

import { appendFileSync, readFileSync } from "node:fs";
import { createServer } from "node:https";
import process from "node:process";

const [certificate = "", key = "", record = "", seconds = ""] = process.argv
  .slice(2);
let count = 0;
const note = (what: object) =>
  appendFileSync(record, JSON.stringify({ at: Date.now(), ...what }) + "\n");

const server = createServer(
  { cert: readFileSync(certificate), key: readFileSync(key) },
  (request, response) => {
    let body = "";
    request.on("data", (chunk) => body += chunk);
    request.on("end", () => {
      const { method, url, headers: { host } } = request;
      if (url !== "/v1/oauth/token") {
        note({ method, url, host });
        return response.writeHead(404).end();
      }
      const { refresh_token: given, grant_type: grant } = JSON.parse(body);
      const good = grant === "refresh_token" && given === `refresh-${count}`;
      note({ method, url, host, given, good });
      response.writeHead(good ? 200 : 400, {
        "content-type": "application/json",
      });
      if (!good) return response.end('{"error":"invalid_grant"}');
      count++;
      response.end(JSON.stringify({
        access_token: `sk-ant-oat01-access-${count}`,
        refresh_token: `refresh-${count}`,
        expires_in: Number(seconds),
        token_type: "Bearer",
      }));
    });
  },
);
server.on("tlsClientError", (error) => note({ refused: error.message }));
server.listen(443, "127.0.0.1");
