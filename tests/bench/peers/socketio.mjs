// Socket.IO: "broadcast" goes to everyone as "message", "echo" is acknowledged with its argument. With the port of a
// Redis server it uses the Redis adapter.

import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const [port, redisPort] = process.argv.slice(2);
const http = createServer();
const io = new Server(http);

if (redisPort) {
  const publisher = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  const subscriber = publisher.duplicate();
  for (const client of [publisher, subscriber]) client.on('error', () => process.exit(1));
  await Promise.all([publisher.connect(), subscriber.connect()]);
  io.adapter(createAdapter(publisher, subscriber));
}

io.on('connection', (socket) => {
  socket.on('broadcast', (text) => io.emit('message', text));
  socket.on('echo', (text, acknowledge) => acknowledge(text));
});

http.listen(Number(port), '127.0.0.1');
