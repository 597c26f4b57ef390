import {
  existsSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, resolve } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { guarded, Rejected } from "../../lib/gateway/guard.ts";
import { shippedTools, type Tools } from "../../lib/gateway/shipped.ts";
import { newHome, serve, type Served } from "../helper/mcp-served.ts";

const test = suite("mcp-guard");
const bin = resolve("node_modules", ".bin");

async function call(served: Served, name: unknown, given?: unknown) {
  const { session = "" } = await served.greet();
  const { message } = await served.send(
    { id: 1, method: "tools/call", params: { name, arguments: given } },
    { "mcp-session-id": session },
  );
  const text = message.result?.content?.[0]?.text ?? "";
  return { error: message.error, text };
}

function memoryBank() {
  const home = newHome();
  return serve({
    command: join(bin, "mcp-server-memory-bank"),
    env: { MEMORY_BANK_ROOT: join(home, "bank") },
    isolation: "shared",
    home,
  });
}

const outside = [
  ["list_project_files", { projectName: "../../../../../../etc" }],
  ["list_project_files", { projectName: "." }],
  ["list_project_files", { projectName: "app/../.." }],
  ["memory_bank_read", { projectName: ".", fileName: "root.md" }],
  ["memory_bank_read", { projectName: "linked", fileName: "secret" }],
  ["memory_bank_read", { projectName: "app", fileName: "link" }],
  ["memory_bank_read", { projectName: "app", fileName: ["note.md"] }],
  [
    "memory_bank_write",
    { projectName: ".git", fileName: "config", content: "[core]" },
  ],
  [
    "memory_bank_update",
    { projectName: "linked", fileName: "secret", content: "overwritten" },
  ],
  [
    "memory_bank_write",
    { projectName: "app", fileName: "new", content: "dangling" },
  ],
] as const;

test("the memory bank has no access outside of a project's directory", async () => {
  const served = await memoryBank();
  const { home } = served;
  const bank = join(home, "bank");
  try {
    mkdirSync(join(home, "outside"));
    mkdirSync(join(bank, "app"));
    writeFileSync(join(home, "outside", "secret"), "secret");
    writeFileSync(join(bank, "app", "note.md"), "a note");
    writeFileSync(join(bank, "root.md"), "of the root");
    symlinkSync(join(home, "outside"), join(bank, "linked"));
    symlinkSync(join(home, "outside", "secret"), join(bank, "app", "link"));
    symlinkSync(join(home, "outside", "new"), join(bank, "app", "new"));
    for (const [tool, given] of outside) {
      const { error, text } = await call(served, tool, given);
      const what = `${tool} ${JSON.stringify(given)}: ${text.slice(0, 100)}`;
      assert.is(error?.code, -32602, what);
      assert.match(error?.message ?? "", tool, what);
    }
    assert.is(readFileSync(join(home, "outside", "secret"), "utf8"), "secret");
    assert.not(existsSync(join(home, "outside", "new")));
    assert.not(existsSync(join(bank, ".git")));
    // Normal use works.
    const note = { projectName: "app", fileName: "note.md" };
    assert.is((await call(served, "memory_bank_read", note)).text, "a note");
    const { error } = await call(served, "memory_bank_update", {
      ...note,
      content: "changed",
    });
    assert.is(error, undefined);
    assert.is(readFileSync(join(bank, "app", "note.md"), "utf8"), "changed");
    assert.match((await call(served, "list_projects")).text, "app");
  } finally {
    await served.close();
  }
});

const env = { MEMORY_BANK_ROOT: "/nowhere" };
const bankTools = toolsOf("mcp-server-memory-bank");
const thinkingTools = toolsOf("mcp-server-sequential-thinking");

function toolsOf(command: string): Tools {
  return shippedTools({ command, args: [], env }, `/bin/${command}`) ?? {};
}

/** The client's error, or the message to the process. */
function judged(tools: Tools, message: object): unknown {
  try {
    return guarded(tools, { jsonrpc: "2.0", ...message } as never);
  } catch (error) {
    if (error instanceof Rejected) return `${error.code} ${error.message}`;
    throw error;
  }
}

const request = (name: unknown, given: unknown) => ({
  id: 1,
  method: "tools/call",
  params: { name, arguments: given },
});

const names: [name: unknown, isAccepted: boolean][] = [
  ["app", true],
  ["my project (2)", true],
  ["Überblick", true],
  ["メモ.md", true],
  ["a".repeat(255), true],
  ["a".repeat(256), false],
  ["é".repeat(128), false],
  ["", false],
  [".", false],
  ["..", false],
  ["a/..", false],
  ["/etc", false],
  ["a/b", false],
  ["a\\b", false],
  ["a\0b", false],
  ["a\nb", false],
  ["-rf", false],
  [".git", false],
  ["\u202egpj", false],
  ["a\u200bb", false],
  ["a\u3164b", false],
  ["a\ud800b", false],
  ["\u2025", false],
  ["a\uff0fb", false],
  [7, false],
  [null, false],
  [["app"], false],
  [{ toString: "app" }, false],
];

for (const [name, isAccepted] of names) {
  const what = JSON.stringify(name).slice(0, 20);
  test(`guarded() ${isAccepted ? "accepts" : "refuses"} the name ${what}`, () => {
    const calls = [
      request("list_project_files", { projectName: name }),
      ...["memory_bank_read", "memory_bank_write", "memory_bank_update"]
        .flatMap((tool) =>
          [[name, "x"], ["x", name]].map(([projectName, fileName]) =>
            request(tool, {
              projectName,
              fileName,
              ...(tool === "memory_bank_read" ? {} : { content: "" }),
            })
          )
        ),
    ];
    for (const call of calls) {
      const found = judged(bankTools, call);
      if (isAccepted) assert.equal(found, { jsonrpc: "2.0", ...call });
      else assert.match(String(found), /^-32602 .*Name" must be/);
    }
  });
}

const refusals: [Tools, object, string][] = [
  [bankTools, request("list_projects", { path: "/" }), "it accepts none"],
  [
    bankTools,
    request("memory_bank_read", { projectName: "a" }),
    '"fileName" is missing',
  ],
  [
    bankTools,
    JSON.parse(
      JSON.stringify(request("list_projects", "PROTO")).replace(
        '"PROTO"',
        '{"__proto__":{"projectName":".."}}',
      ),
    ),
    "unknown argument",
  ],
  [bankTools, request("list_projects", []), "must be an object"],
  [bankTools, request("list_projects", "a"), "must be an object"],
  [bankTools, request("constructor", {}), "-32602 Unknown tool"],
  [bankTools, request(["list_projects"], {}), "-32602 Unknown tool"],
  [bankTools, { id: 1, method: "tools/call" }, "-32602 Unknown tool"],
  ...["resources/read", "resources/list", "prompts/get", "completion/complete"]
    .map((method): [Tools, object, string] => [
      bankTools,
      { id: 1, method, params: { uri: "file:///etc/passwd" } },
      "-32601 Method not found",
    ]),
  [
    thinkingTools,
    request("sequentialthinking", thought({ thought: "x".repeat(100_001) })),
    '"thought" must be at most 100000 characters',
  ],
  [
    thinkingTools,
    request("sequentialthinking", thought({ thoughtNumber: [1] })),
    '"thoughtNumber" must be a whole number',
  ],
  [
    thinkingTools,
    request("sequentialthinking", thought({ file: "/etc/passwd" })),
    "unknown argument; it accepts thought, nextThoughtNeeded",
  ],
];

function thought(more: object) {
  return {
    thought: "x",
    thoughtNumber: 1,
    totalThoughts: "3",
    nextThoughtNeeded: "true",
    ...more,
  };
}

for (const [tools, message, expected] of refusals) {
  const what = JSON.stringify(message).slice(1, 100);
  test(`guarded() refuses ${what}`, () => {
    assert.match(String(judged(tools, message)), expected);
  });
}

test("guarded() passes calls without names, and drops unexpected notifications", () => {
  const pass = (message: object) =>
    assert.equal(judged(bankTools, message), { jsonrpc: "2.0", ...message });
  pass({ id: 1, method: "ping" });
  pass({ id: 1, method: "tools/list" });
  pass({ method: "notifications/cancelled", params: { requestId: 1 } });
  pass({ id: 1, result: {} });
  const { params } = request("list_project_files", { projectName: ".." });
  assert.is(judged(bankTools, { method: "tools/call", params }), undefined);
  const call = request("sequentialthinking", thought({ branchId: "b" }));
  assert.equal(judged(thinkingTools, call), { jsonrpc: "2.0", ...call });
});

test("shippedTools() recognizes a server regardless of how it is started", () => {
  const known = (command: string, args: string[] = [], program = command) =>
    Boolean(shippedTools({ command, args, env }, program));
  assert.ok(known("mcp-server-memory-bank", [], "/usr/bin/x"));
  assert.ok(known("/opt/bin/mcp-server-memory-bank"));
  assert.ok(known("npx", ["-y", "@allpepper/memory-bank-mcp"]));
  assert.ok(known("npx", ["-y", "@allpepper/memory-bank-mcp@latest"]));
  const main = "@allpepper/memory-bank-mcp/dist/main/index.js";
  assert.ok(known("node", [`/usr/lib/node_modules/${main}`]));
  // Identified by the target of a link.
  assert.ok(known("bank", [], join(bin, "mcp-server-memory-bank")));
  assert.ok(known("npx", ["@modelcontextprotocol/server-sequential-thinking"]));
  assert.not(known("npx", ["-y", "@other/memory-bank-mcp"]));
  assert.not(known("node", ["server.js", "--like=mcp-server"]));
});

test.run();
