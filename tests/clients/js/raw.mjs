// Connections of the official client without a hub, as used by its own suite.

import httpConnection from "@microsoft/signalr/dist/cjs/HttpConnection.js";
import { HttpTransportType, TransferFormat } from "@microsoft/signalr";
import { emit } from "./lines.mjs";

const { HttpConnection } = httpConnection;
const connections = new Map();

async function open({ client, url, transport, binary, logContent }) {
  const lines = [];
  const connection = new HttpConnection(url, {
    logMessageContent: logContent ?? false,
    logger: { log: (level, message) => lines.push(message) },
    ...(transport ? { transport: HttpTransportType[transport] } : {}),
  });
  connection.onreceive = (data) => {
    if (typeof data === "string") emit({ event: "received", client, text: data });
    else emit({ event: "received", client, base64: Buffer.from(data).toString("base64") });
  };
  connection.onclose = (error) => emit({ event: "closed", client, error: error?.message ?? null });
  await connection.start(binary ? TransferFormat.Binary : TransferFormat.Text);
  connections.set(client, { connection, lines });
}

const of = ({ client }) => connections.get(client);

export const operations = {
  rawOpen: open,
  rawSend: ({ text, base64, ...rest }) => of(rest).connection.send(text ?? new Uint8Array(Buffer.from(base64, "base64"))),
  rawStop: (options) => of(options).connection.stop(),
  rawLog: (options) => of(options).lines,
};
