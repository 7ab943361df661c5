// Node's `ws`: texts starting with "b" go to everyone, texts starting with "e" back to the sender.

import { WebSocketServer } from 'ws';

const [port] = process.argv.slice(2);
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port) });

// Sent as bytes, because a text would be encoded for each client.
const TEXT = { binary: false };
const EVERYONE = 'b'.charCodeAt(0);

server.on('connection', (client) => {
  client.on('error', () => {}); // who leaves without a farewell is no end of the server
  client.on('message', (message) => {
    const text = message.subarray(1);
    if (message[0] !== EVERYONE) {
      client.send(text, TEXT);
      return;
    }
    for (const each of server.clients) each.send(text, TEXT);
  });
});
