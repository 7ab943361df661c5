// Follows a group by the helper of the book, comes back to a node that was away, and loses its connection twice. Prints
// each shown number in a line.

import * as signalR from "@microsoft/signalr";
import { follow } from "../../../docs/book/src/examples/follow.mjs";

const [url, token, group] = process.argv.slice(2);
const kept = new Map();
globalThis.sessionStorage = { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => kept.set(key, value) };
const connection = new signalR.HubConnectionBuilder()
  .withUrl(url, { accessTokenFactory: () => token, transport: signalR.HttpTransportType.WebSockets })
  .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 200 })
  .configureLogging(signalR.LogLevel.None)
  .build();
await connection.start();
const show = (_, [number]) => {
  console.log(`shown ${number}`);
  // Like the official suite, simulates a silent server.
  if (number === 100 || number === 200) connection.serverTimeout();
};
follow(connection, group, show, (reason) => console.log(`reset ${reason}`));
console.log("following");
