// Runs in a worker and floods ChromaDB: sends COUNT concurrent requests of 38 MB that add
// embeddings. Prints the number of answers for each status.

import { Buffer } from "node:buffer";
import { createConnection } from "node:net";
import process from "node:process";

const [count = 200] = process.argv.slice(2).map(Number);
const base =
  "/api/v2/tenants/default_tenant/databases/default_database/collections";
const origin = "http://127.0.0.1:8000";

const made = await fetch(origin + base, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ name: "flood", get_or_create: true }),
});
const { id } = await made.json() as { id: string };

// 5,000 vectors of 384 numbers.
const vector = Array.from({ length: 384 }, (_, at) => Math.sin(at).toFixed(17));
const embeddings = Array(5000).fill(`[${vector.join(",")}]`).join(",");
const ids = Array.from({ length: 5000 }, (_, at) => `"${at}"`).join(",");
const body = Buffer.from(`{"ids":[${ids}],"embeddings":[${embeddings}]}`);
const head = `POST ${base}/${id}/add HTTP/1.1\r\nHost: x\r\n` +
  "Content-Type: application/json\r\nConnection: close\r\n" +
  `Content-Length: ${body.length}\r\n\r\n`;
console.log(`body ${body.length}`);

const answers = new Map<string, number>();
await Promise.all(
  Array.from({ length: count }, () =>
    new Promise<void>((resolve) => {
      const socket = createConnection(8000, "127.0.0.1");
      let status = "closed";
      socket.on("data", (chunk) => {
        if (status === "closed") status = String(chunk).split(" ")[1] ?? "?";
      });
      socket.on("error", (error) => {
        if (status === "closed") {
          status = (error as NodeJS.ErrnoException).code ?? "error";
        }
      });
      socket.on("close", () => {
        answers.set(status, (answers.get(status) ?? 0) + 1);
        resolve();
      });
      socket.write(head);
      socket.write(body);
    })),
);
console.log(JSON.stringify(Object.fromEntries(answers)));
