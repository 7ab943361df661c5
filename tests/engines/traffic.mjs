// Official JavaScript clients that send numbered messages in both directions through a deployment, and count their outcomes.
//
//   node traffic.mjs URL FILE    runs until SIGINT or SIGTERM, then writes its counts into FILE, as JSON
//
// CLIENTS is the size of the smallest group (3): as many clients use event streams, as many poll, twice as many use
// WebSockets, and twice as many WebSockets with stateful reconnect. PERIOD is the pause of each loop in ms (400).
// NODE_MODULES is a folder with the packages of tests/clients/js.
//
// The app server is examples/bench with --stateful: Echo is a call, EchoBack a message up and one down, SendToGroup a broadcast.

import { createRequire } from "node:module";
import fs from "node:fs";

const require = createRequire(`${process.env.NODE_MODULES}/index.js`);
const signalR = require("@microsoft/signalr");
const { MessagePackHubProtocol } = require("@microsoft/signalr-protocol-msgpack");

const TRANSPORT = signalR.HttpTransportType;
const GROUPS = [
  { name: "stateful", transport: TRANSPORT.WebSockets, stateful: true, share: 2, protocols: ["json", "msgpack"] },
  { name: "WebSockets", transport: TRANSPORT.WebSockets, share: 2, protocols: ["json", "msgpack"] },
  { name: "event streams", transport: TRANSPORT.ServerSentEvents, share: 1, protocols: ["json"] },
  { name: "polling", transport: TRANSPORT.LongPolling, share: 1, protocols: ["json", "msgpack"] },
];
const RECONNECT_MS = [0, 500, 1000, 2000, 2000, 5000, 5000, 10000, 10000, 30000];
const SIZE = Number(process.env.CLIENTS ?? 3);
const PERIOD_MS = Number(process.env.PERIOD ?? 400);
// A call without an answer by then counts as hanging.
const CALL_MS = 30_000;
// Time for messages in flight when all loops have ended.
const LAST_MESSAGES_MS = 4_000;
const ROOM = "all";

const [url, file] = process.argv.slice(2);
const begun = Date.now();
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const log = (...words) => console.log(`[${((Date.now() - begun) / 1000).toFixed(1)}]`, ...words);
const add = (counts, key) => { counts[key] = (counts[key] ?? 0) + 1; };
const text = (error) => String(error?.message ?? error).slice(0, 200);
let isStopping = false;

// Uncaught errors of the client library, which would end the process.
const uncaught = {};
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => {
    add(uncaught, text(error));
    log(event, error?.stack ?? error);
  });
}

/** Numbers of one sender at one receiver. */
class Numbers {
  constructor(first = 0) {
    this.next = first;
    this.got = 0;
    this.doubled = 0;
    this.misordered = 0;
    this.missing = new Set();
  }

  take(number) {
    this.got++;
    if (number >= this.next) {
      for (let n = this.next; n < number; n++) this.missing.add(n);
      this.next = number + 1;
    } else if (this.missing.delete(number)) {
      this.misordered++;
    } else {
      this.doubled++;
    }
  }

  /** Missing numbers below `end`, except those with an unknown outcome. */
  lost(end, unsure = new Set()) {
    const late = Array.from({ length: Math.max(0, end - this.next) }, (_, n) => this.next + n);
    return [...this.missing, ...late].filter((n) => !unsure.has(n)).length;
  }
}

class Client {
  constructor(index, group, protocol) {
    Object.assign(this, { index, group, calls: 0, failed: 0, hanging: 0, wrong: 0, slowestMs: 0, reconnects: 0, closed: 0 });
    Object.assign(this, { sent: 0, sendErrors: 0, published: 0, longestMs: 0, errors: {}, reasons: {} });
    this.echoes = new Numbers();
    this.broadcasts = new Map();
    this.unsure = new Set();
    const builder = new signalR.HubConnectionBuilder().withUrl(url, { transport: group.transport })
      .configureLogging(signalR.LogLevel.None).withAutomaticReconnect(RECONNECT_MS);
    if (protocol === "msgpack") builder.withHubProtocol(new MessagePackHubProtocol());
    if (group.stateful) builder.withStatefulReconnect();
    this.connection = builder.build();
    this.listen();
  }

  get name() { return `${this.group.name} ${this.index}`; }
  get isConnected() { return this.connection.state === signalR.HubConnectionState.Connected; }

  listen() {
    this.connection.on("Echoed", (number) => this.echoes.take(number));
    this.connection.on("Message", ({ from, number }) => {
      if (!this.broadcasts.has(from)) this.broadcasts.set(from, new Numbers(number));
      this.broadcasts.get(from).take(number);
    });
    this.connection.onreconnecting((error) => {
      this.reconnects++;
      this.lostAt = Date.now();
      add(this.reasons, text(error));
    });
    this.connection.onreconnected(() => this.isBack());
    this.connection.onclose((error) => {
      if (isStopping) return;
      this.closed++;
      this.lostAt ??= Date.now();
      add(this.reasons, `closed: ${text(error)}`);
      log(this.name, "closed:", text(error));
      setTimeout(() => this.begin().catch((again) => log(this.name, "start:", text(again))), 1000);
    });
  }

  isBack() {
    if (this.lostAt) this.longestMs = Math.max(this.longestMs, Date.now() - this.lostAt);
    this.lostAt = undefined;
    return this.join();
  }

  async join() {
    try {
      await this.connection.invoke("Join", ROOM);
    } catch (error) {
      add(this.errors, `Join: ${text(error)}`);
    }
  }

  async begin() {
    await this.connection.start();
    await this.isBack();
  }

  /** Calls sequentially. Like an app, it waits while the client is disconnected. */
  async call() {
    for (let number = 0; !isStopping; number++) {
      if (this.isConnected) {
        const at = Date.now();
        this.calls++;
        let timer;
        const late = new Promise((_, fail) => {
          timer = setTimeout(() => { this.hanging++; fail(new Error(`no answer within ${CALL_MS} ms`)); }, CALL_MS);
        });
        try {
          if ((await Promise.race([this.connection.invoke("Echo", number), late])) !== number) this.wrong++;
        } catch (error) {
          this.failed++;
          add(this.errors, text(error));
        } finally {
          clearTimeout(timer);
        }
        this.slowestMs = Math.max(this.slowestMs, Date.now() - at);
      }
      await sleep(PERIOD_MS);
    }
  }

  /** Sends messages, each answered by one message. */
  async send() {
    while (!isStopping) {
      if (this.isConnected) {
        const number = this.sent++;
        try {
          await this.connection.send("EchoBack", number);
        } catch {
          // The outcome is unknown; the client got an error.
          this.sendErrors++;
          this.unsure.add(number);
        }
      }
      await sleep(PERIOD_MS);
    }
  }

  /** Broadcasts to all clients. */
  async publish() {
    this.unsurePublished = new Set();
    while (!isStopping) {
      if (this.isConnected) {
        const number = this.published++;
        try {
          await this.connection.invoke("SendToGroup", ROOM, { from: this.index, number });
        } catch (error) {
          this.unsurePublished.add(number);
          this.failed++;
          add(this.errors, `publish: ${text(error)}`);
        }
      }
      await sleep(PERIOD_MS);
    }
  }
}

function summary(clients) {
  const groups = {};
  for (const group of GROUPS) {
    const own = clients.filter((client) => client.group === group);
    const sum = (value) => own.reduce((total, client) => total + value(client), 0);
    const most = (value) => own.reduce((top, client) => Math.max(top, value(client)), 0);
    const merged = (key) => own.reduce((all, client) => {
      for (const [reason, count] of Object.entries(client[key])) all[reason] = (all[reason] ?? 0) + count;
      return all;
    }, {});
    const heard = (value) => sum((client) => [...client.broadcasts].reduce((total, [from, numbers]) => total + value(numbers, clients[from]), 0));
    groups[group.name] = {
      clients: own.length,
      calls: sum((client) => client.calls),
      failed: sum((client) => client.failed),
      hanging: sum((client) => client.hanging),
      wrong: sum((client) => client.wrong),
      slowestMs: most((client) => client.slowestMs),
      reconnects: sum((client) => client.reconnects),
      closed: sum((client) => client.closed),
      away: sum((client) => (client.isConnected ? 0 : 1)),
      longestMs: most((client) => client.longestMs),
      sent: sum((client) => client.sent),
      echoesLost: sum((client) => client.echoes.lost(client.sent, client.unsure)),
      broadcasts: heard((numbers) => numbers.got),
      broadcastsLost: heard((numbers, from) => numbers.lost(from.published, from.unsurePublished)),
      doubled: sum((client) => client.echoes.doubled) + heard((numbers) => numbers.doubled),
      misordered: sum((client) => client.echoes.misordered) + heard((numbers) => numbers.misordered),
      errors: merged("errors"),
      reasons: merged("reasons"),
    };
  }
  return groups;
}

const clients = [];
for (const group of GROUPS) {
  for (let n = 0; n < SIZE * group.share; n++) {
    clients.push(new Client(clients.length, group, group.protocols[n % group.protocols.length]));
  }
}
const stopped = new Promise((done) => { for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, done); });

await Promise.all(clients.map((client) => client.begin()));
// Clients with stateful reconnect publish: none of their upward messages may be lost.
const loops = clients.flatMap((client, index) => [client.call(), client.send(), ...(index < 2 ? [client.publish()] : [])]);
log("connected:", clients.length);

await stopped;
isStopping = true;
await Promise.race([Promise.all(loops), sleep(CALL_MS + 1000)]);
await sleep(LAST_MESSAGES_MS);
fs.writeFileSync(file, JSON.stringify({ groups: summary(clients), uncaught }, null, 1));
await Promise.race([Promise.all(clients.map((client) => client.connection.stop())), sleep(5000)]);
process.exit(0);
