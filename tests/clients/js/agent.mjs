// Drives any number of official SignalR clients (@microsoft/signalr) on behalf of the end-to-end tests.
//
// Numbered sequences are sent and checked here, so that 100 000 messages need not cross the pipe.

import * as signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { emit, serve } from "./lines.mjs";
import { Sequence } from "./sequence.mjs";

// Sends between two turns of the event loop: enough to be fast, few enough to keep reading.
const FLOOD_BATCH = 256;

const clients = new Map();

const logger = {
  log(level, message) {
    if (level >= signalR.LogLevel.Warning) console.error(message);
  },
};

function build(options) {
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(options.url, {
      transport: signalR.HttpTransportType[options.transport ?? "WebSockets"],
      skipNegotiation: options.skipNegotiation ?? false,
      headers: options.headers ?? {},
      ...(options.accessToken ? { accessTokenFactory: () => options.accessToken } : {}),
    })
    .withHubProtocol(options.protocol === "messagepack" ? new MessagePackHubProtocol() : new signalR.JsonHubProtocol())
    .configureLogging(logger);
  if (options.reconnectDelays) builder.withAutomaticReconnect(options.reconnectDelays);
  return builder.build();
}

function listen(client, connection, options, sequences) {
  for (const target of options.subscribe ?? []) {
    connection.on(target, (...args) => emit({ event: "message", client, target, arguments: args }));
  }
  for (const target of options.count ?? []) {
    const sequence = new Sequence();
    sequences.set(target, sequence);
    connection.on(target, (number) => sequence.take(number));
  }
  connection.onclose((error) => emit({ event: "closed", client, error: error?.message ?? null }));
  connection.onreconnecting((error) => emit({ event: "reconnecting", client, error: error?.message ?? null }));
  connection.onreconnected((connectionId) => emit({ event: "reconnected", client, connectionId }));
}

async function open({ client, ...options }) {
  const connection = build(options);
  const sequences = new Map();
  listen(client, connection, options, sequences);
  await connection.start();
  clients.set(client, { connection, sequences });
  return { connectionId: connection.connectionId };
}

async function flood({ client, target, from, count }) {
  const { connection } = clients.get(client);
  for (let sent = 0; sent < count; ) {
    const batch = [];
    for (let end = Math.min(count, sent + FLOOD_BATCH); sent < end; sent++) {
      batch.push(connection.send(target, from + sent));
    }
    await Promise.all(batch);
    await new Promise(setImmediate);
  }
}

serve({
  open,
  flood,
  invoke: ({ client, target, arguments: args }) => clients.get(client).connection.invoke(target, ...args),
  send: ({ client, target, arguments: args }) => clients.get(client).connection.send(target, ...args),
  verify: ({ client, target, count }) => clients.get(client).sequences.get(target).reached(count),
  close: ({ client }) => clients.get(client).connection.stop(),
});
