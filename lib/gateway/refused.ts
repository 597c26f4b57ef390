// What a client is told that gets no further than to the gateway.

/** As JSON-RPC has them for servers, -32000 to -32099. */
export const serverError = -32000;

/** Where every place that the client may have is taken. */
export const tooManyClients = "There are too many clients already";

export function refused(status: number, message: string): Response {
  const error = { code: serverError, message };
  return Response.json({ jsonrpc: "2.0", error, id: null }, { status });
}
