// Creates a tar(5) archive for the engine's API that copies files into a container.

import { Buffer } from "node:buffer";

const blockBytes = 512;

/** A tar archive that contains one symbolic link owned by root. */
export function linkArchive(path: string, target: string): Buffer {
  const header = Buffer.alloc(blockBytes);
  const [name, prefix] = splitName(path.replace(/^\/+/, ""));
  header.write(name, 0);
  header.write("0000777\0" + "0000000\0".repeat(2), 100);
  header.write("00000000000\0".repeat(2), 124);
  header.write(" ".repeat(8), 148); // the checksum is computed with blanks in its own field
  header.write("2", 156);
  header.write(target, 157);
  header.write("ustar\x0000", 257);
  header.write(prefix, 345);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, Buffer.alloc(2 * blockBytes)]);
}

/** Splits a path into a name of up to 100 bytes and a prefix of up to 155 bytes. */
function splitName(path: string): [name: string, prefix: string] {
  if (Buffer.byteLength(path) <= 100) return [path, ""];
  for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (Buffer.byteLength(name) > 100) continue;
    if (Buffer.byteLength(prefix) <= 155) return [name, prefix];
  }
  throw new Error(`"${path}" is too long for a tar archive`);
}
