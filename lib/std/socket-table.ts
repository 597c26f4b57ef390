// Finds the users of listening sockets in the text of /proc/net/tcp, see proc_net(5).

/**
 * The uids of the sockets that listen on 127.0.0.1 at `port`. Columns: 2 is the local
 * address, 4 the state (0A: listening), 8 the uid.
 */
export function listenerUsers(table: string, port: number): number[] {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return table.split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter((row) => row[1] === local && row[3] === "0A")
    .map((row) => Number(row[7]));
}
