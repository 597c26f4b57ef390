// Responses of the gateway to clients that it rejects.

/** JSON-RPC reserves -32000 to -32099 for servers. */
export const serverError = -32000;

/** When all slots that the client may use are taken. */
export const tooManyClients = "There are too many clients already";

export function refused(status: number, message: string): Response {
  const error = { code: serverError, message };
  return Response.json({ jsonrpc: "2.0", error, id: null }, { status });
}
