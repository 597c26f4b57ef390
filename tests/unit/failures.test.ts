// How errors of the file system are explained.

import { suite } from "uvu";
import * as assert from "uvu/assert";
import {
  exitCode,
  Failure,
  fileFailure,
  messageOf,
  warnOnFileError,
} from "../../lib/std/errors.ts";

const test = suite("failures");

const errorWith = (code: string, syscall?: string, path?: string) =>
  Object.assign(new Error(code), { code, syscall, path });

const explained: [code: string, syscall: string, says: string][] = [
  ["ENOSPC", "write", "resources: The disk is full: cannot write /h/x"],
  ["EDQUOT", "write", "resources: The disk quota is exceeded: cannot write"],
  [
    "EROFS",
    "mkdir",
    "failed: Cannot create /h/x: the file system is read-only",
  ],
  ["EACCES", "open", "failed: Cannot write /h/x: permission denied"],
  ["EPERM", "chown", "failed: Cannot set the owner of /h/x: the operation is"],
  ["EPERM", "lchown", "failed: Cannot set the owner of /h/x"],
  ["EPERM", "chmod", "failed: Cannot set the mode of /h/x: the operation is"],
  ["ENOENT", "open", "notFound: Cannot read /h/x: there is no such file"],
  ["ENOENT", "lstat", "notFound: Cannot find /h/x"],
  ["ENOENT", "stat", "notFound: Cannot find /h/x"],
  ["ENOTDIR", "scandir", "failed: Cannot read /h/x: a part of the path is not"],
  ["ENOTDIR", "readdir", "failed: Cannot read /h/x"],
  ["ENOTDIR", "opendir", "failed: Cannot read /h/x"],
  ["EISDIR", "rename", "failed: Cannot write /h/x: it is a directory"],
  ["EISDIR", "link", "failed: Cannot write /h/x"],
  ["EISDIR", "read", "failed: Cannot read /h/x: it is a directory"],
  ["EACCES", "unlink", "failed: Cannot remove /h/x"],
  ["EACCES", "rm", "failed: Cannot remove /h/x"],
  ["EACCES", "rmdir", "failed: Cannot remove /h/x"],
  ["EIO", "fsync", "failed: Cannot write /h/x: input/output error"],
];

for (const [code, syscall, says] of explained) {
  test(`${code} of ${syscall} says what failed, on what and why, with a hint`, () => {
    const failure = fileFailure(errorWith(code, syscall, "/h/x"));
    const text = `${failure?.kind}: ${failure?.message}`;
    assert.ok(text.startsWith(says), text);
    assert.match(failure?.hint ?? "", /^[A-Z].* \w/);
    assert.instance(failure?.cause, Error);
  });
}

test("a temporary file is not named, and a file without a name is a file", () => {
  const path = "/h/x.json.0123456789abcdef.tmp";
  assert.is(
    fileFailure(errorWith("EIO", "write", path))?.message,
    "Cannot write /h/x.json: input/output error",
  );
  assert.is(
    fileFailure(errorWith("ENOSPC", "write"))?.message,
    "The disk is full: cannot write a file",
  );
});

test("other errors are not errors of the file system", () => {
  for (
    const error of [
      errorWith("ENOENT", "connect", "/socket"),
      errorWith("ENOENT"),
      errorWith("EUNKNOWN", "open", "/h/x"),
      new Failure("failed", "x"),
      new Error("x"),
      undefined,
      "text",
    ]
  ) {
    assert.is(fileFailure(error), undefined, String(error));
  }
});

test("an optional step warns of errors of the file system, and throws others", async () => {
  const told: string[] = [];
  const log = (line: string) => void told.push(line);
  await warnOnFileError(log, () => {
    throw errorWith("EIO", "write", "/h/x");
  });
  await warnOnFileError(log, () => {});
  assert.equal(told, ["warning: Cannot write /h/x: input/output error"]);
  const other = await warnOnFileError(log, () => {
    throw new Error("a bug");
  }).catch(messageOf);
  assert.is(other, "a bug");
  assert.is(messageOf("text"), "text");
});

test("each kind of failure has its exit code", () => {
  assert.equal(exitCode, {
    failed: 1,
    usage: 2,
    engine: 3,
    notFound: 4,
    busy: 5,
    unsafe: 6,
    resources: 7,
    partial: 8,
    interrupted: 130,
  });
  assert.is(new Failure("busy", "x").exitCode, 5);
});

test.run();
