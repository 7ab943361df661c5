// Node's `ws`: texts starting with "b" go to everyone, texts starting with "e" back to the sender. `compress` compresses them,
// each by itself.

import { WebSocketServer } from 'ws';

const [port, compress] = process.argv.slice(2);
const perMessageDeflate = compress === 'compress' && { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true };
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), perMessageDeflate });

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
