// Whose sockets listen, from the text of /proc/net/tcp, proc_net(5).

/**
 * The users whose sockets listen on 127.0.0.1 at `port`. Columns: local address in
 * the second, state in the fourth (0A: listening), user in the eighth.
 */
export function listenerUsers(table: string, port: number): number[] {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table.split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((row) => row[1] === local && row[3] === "0A")
    .map((row) => Number(row[7]));
}
