// Drives any number of official SignalR clients (@microsoft/signalr) on behalf of the end-to-end tests.
//
// Numbered sequences are sent and checked here, so that 100 000 messages need not cross the pipe.

import * as signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { answerHeld, handlersOf } from "./answers.mjs";
import { emit, serve } from "./lines.mjs";
import { operations as rawOperations } from "./raw.mjs";
import { Sequence } from "./sequence.mjs";
import { pack, unpack } from "./values.mjs";

// Sends between two turns of the event loop: enough for speed, few enough to keep reading.
const FLOOD_BATCH = 256;

const clients = new Map();

const logger = {
  log(level, message) {
    if (level >= signalR.LogLevel.Warning) console.error(message);
  },
};

// Hub protocol that reports headers of messages, which the library does not support.
function withHeaders(protocol, { client, showHeaders }) {
  const { parseMessages } = protocol;
  protocol.parseMessages = (...input) => {
    const messages = parseMessages.apply(protocol, input);
    for (const { type, target = null, headers = {} } of showHeaders ? messages : []) {
      if (Object.keys(headers).length > 0) emit({ event: "message", client, target: "$headers", arguments: [type, target, headers] });
    }
    return messages;
  };
  return protocol;
}

function build(options) {
  const factory = options.asyncAccessToken
    ? () => new Promise((resolve) => setImmediate(() => resolve(options.accessToken)))
    : () => options.accessToken;
  const builder = new signalR.HubConnectionBuilder()
    .withUrl(options.url, {
      ...(options.transport === "any" ? {} : { transport: signalR.HttpTransportType[options.transport ?? "WebSockets"] }),
      skipNegotiation: options.skipNegotiation ?? false,
      headers: options.headers ?? {},
      ...(options.accessToken ? { accessTokenFactory: factory } : {}),
    })
    .withHubProtocol(withHeaders(options.protocol === "messagepack" ? new MessagePackHubProtocol() : new signalR.JsonHubProtocol(), options))
    .configureLogging(logger);
  if (options.stateful) builder.withStatefulReconnect();
  if (options.reconnectDelays) builder.withAutomaticReconnect(options.reconnectDelays);
  if (options.serverTimeoutMs) builder.withServerTimeout(options.serverTimeoutMs);
  if (options.keepAliveMs) builder.withKeepAliveInterval(options.keepAliveMs);
  return builder.build();
}

function listen(client, connection, options, { sequences, interruptions }) {
  for (const target of options.subscribe ?? []) {
    connection.on(target, (...args) => emit({ event: "message", client, target, arguments: pack(args) }));
  }
  for (const target of options.count ?? []) {
    const sequence = new Sequence();
    sequences.set(target, sequence);
    connection.on(target, (number) => sequence.take(number));
  }
  for (const [target, order] of Object.entries(options.answers ?? {})) {
    for (const handler of handlersOf(order, client, target)) connection.on(target, handler);
  }
  connection.onclose((error) => {
    interruptions.push(`closed: ${error?.message ?? ""}`);
    emit({ event: "closed", client, error: error?.message ?? null });
  });
  connection.onreconnecting((error) => {
    interruptions.push(`reconnecting: ${error?.message ?? ""}`);
    if (options.nextAccessToken) options.accessToken = options.nextAccessToken;
    if (options.reconnectTo) connection.baseUrl = options.reconnectTo;
    emit({ event: "reconnecting", client, error: error?.message ?? null });
  });
  connection.onreconnected((connectionId) => emit({ event: "reconnected", client, connectionId }));
}

async function open({ client, ...options }) {
  // Shared object, because its token may change later.
  const connection = build(Object.assign(options, { client }));
  const kept = { connection, sequences: new Map(), interruptions: [], subjects: new Map() };
  listen(client, connection, options, kept);
  await connection.start();
  clients.set(client, kept);
  return { connectionId: connection.connectionId };
}

async function start({ client }) {
  const { connection } = clients.get(client);
  await connection.start();
  return { connectionId: connection.connectionId };
}

async function flood({ client, target, from, count, padding }) {
  const { connection } = clients.get(client);
  const rest = padding ? ["x".repeat(padding)] : [];
  for (let sent = 0; sent < count; ) {
    const batch = [];
    for (let end = Math.min(count, sent + FLOOD_BATCH); sent < end; sent++) {
      batch.push(connection.send(target, from + sent, ...rest));
    }
    await Promise.all(batch);
    await new Promise(setImmediate);
  }
}

// Replies at the end of the stream with its items and any error. After `atMost` items it is cancelled.
function stream({ client, target, arguments: args, atMost }) {
  const { connection, subjects } = clients.get(client);
  return new Promise((resolve) => {
    const items = [];
    const end = (error) => resolve({ items: pack(items), error: error?.message ?? null });
    const cancel = () => {
      subscription.dispose();
      end();
    };
    const next = (item) => {
      items.push(item);
      if (items.length === atMost) cancel();
    };
    const subscription = connection.stream(target, ...unpack(args, subjects)).subscribe({ next, complete: end, error: end });
    if (atMost === 0) cancel();
  });
}

async function act(name, { client, target, arguments: args }) {
  const { connection, subjects } = clients.get(client);
  return pack(await connection[name](target, ...unpack(args, subjects)));
}

// The library numbers its uploads; here they have names.
const upload = ({ client, subject }) => void clients.get(client).subjects.set(subject, new signalR.Subject());
const subjectOf = ({ client, subject }) => clients.get(client).subjects.get(subject);

function feed({ items, ...of }) {
  for (const item of items) subjectOf(of).next(unpack(item));
}

serve({
  ...rawOperations,
  answerHeld,
  open,
  start,
  flood,
  stream,
  upload,
  feed,
  invoke: (options) => act("invoke", options),
  send: (options) => act("send", options),
  complete: (options) => subjectOf(options).complete(),
  fail: ({ error, ...of }) => subjectOf(of).error(new Error(error)),
  verify: ({ client, target, count }) => clients.get(client).sequences.get(target).reached(count),
  // Reported ends of the connection, and its current id. The library has an id from the
  // negotiation on, but keeps calls made before the handshake in the buffer of the lost connection.
  interruptions: ({ client }) => {
    const { connection, interruptions } = clients.get(client);
    const isConnected = connection.state === signalR.HubConnectionState.Connected;
    return { interruptions, connectionId: isConnected ? connection.connectionId : null };
  },
  // Like the official suite, simulates a silent server.
  sever: ({ client }) => clients.get(client).connection.serverTimeout(),
  close: ({ client }) => clients.get(client).connection.stop(),
});
