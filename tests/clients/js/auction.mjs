// Official clients at the tests' auction: each watches a lot, bids, repeats unanswered bids, and counts.
//
//   {"op":"start","url":URL,"clients":N,"lots":M}   connects all clients, which then start to bid
//   {"op":"count"}                                  counts since the last count
//   {"op":"finish"}                                 ends bidding, waits for all answers, and compares with the stored bids

import * as signalR from "@microsoft/signalr";
import { MessagePackHubProtocol } from "@microsoft/signalr-protocol-msgpack";
import { serve } from "./lines.mjs";

const PAUSE_MS = 100;
// Unanswered calls count as hanging after this time.
const CALL_MS = 20_000;
const RECONNECT_MS = [0, 100, 200, 500, ...Array(60).fill(1000)];

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const bidders = [];
let isOver = false;

class Bidder {
  constructor(index, url, lot) {
    Object.assign(this, { index, lot, answered: new Map(), pushed: new Map(), known: new Set(), recorded: new Set(), counts: {} });
    const builder = new signalR.HubConnectionBuilder().withUrl(url).configureLogging(signalR.LogLevel.None)
      .withAutomaticReconnect(RECONNECT_MS).withStatefulReconnect();
    this.connection = (index % 2 ? builder.withHubProtocol(new MessagePackHubProtocol()) : builder).build();
    this.connection.on("Placed", (bid) => {
      this.pushed.set(bid.number, (this.pushed.get(bid.number) ?? 0) + 1);
      if (this.pushed.get(bid.number) > 1) this.add("doubled");
      this.known.add(bid.number);
    });
    this.connection.on("Recorded", (number) => this.recorded.add(number));
    this.connection.onreconnecting(() => this.add("reconnects"));
    this.connection.onreconnected(() => this.watch());
    this.connection.onclose(() => { if (!isOver) this.add("closed"); });
  }

  add(key, count = 1) {
    this.counts[key] = (this.counts[key] ?? 0) + count;
  }

  /** Repeats a call until it is answered. */
  async call(...words) {
    while (true) {
      while (this.connection.state !== signalR.HubConnectionState.Connected) await sleep(20);
      let timer;
      const late = new Promise((_, fail) => {
        timer = setTimeout(() => { this.add("hung"); fail(new Error("no answer")); }, CALL_MS);
      });
      try {
        return await Promise.race([this.connection.invoke(...words), late]);
      } catch (error) {
        this.add("failed");
        this.add(String(error.message).slice(0, 120));
      } finally {
        clearTimeout(timer);
      }
    }
  }

  /** Watches the lot, and fetches missed bids. */
  async watch() {
    for (const { number } of await this.call("Watch", this.lot)) {
      if (!this.known.has(number)) this.add("caughtUp");
      this.known.add(number);
      // May have been recorded while the client was disconnected.
      this.recorded.add(number);
    }
  }

  async begin() {
    await this.connection.start();
    await this.watch();
    this.counts = {};
    this.bidding = this.bid();
  }

  async bid() {
    for (let n = 0; !isOver; n++) {
      const id = `${this.index}-${n}`;
      this.answered.set(id, await this.call("Bid", id, this.lot, n));
      await sleep(PAUSE_MS);
    }
  }

  async compare() {
    const stored = await this.call("Watch", this.lot);
    for (const { number } of stored) if (!this.known.has(number)) this.add("caughtUp");
    const unrecorded = () => stored.filter(({ number }) => !this.recorded.has(number)).length;
    for (const until = Date.now() + CALL_MS; unrecorded() > 0 && Date.now() < until;) await sleep(20);
    this.add("unrecorded", unrecorded());
    const ids = new Map(stored.map((bid) => [bid.id, bid.number]));
    this.add("storedTwice", stored.length - ids.size);
    for (const [id, number] of this.answered) if (ids.get(id) !== number) this.add("answeredNotStored");
    for (const id of ids.keys()) if (id.startsWith(`${this.index}-`) && !this.answered.has(id)) this.add("storedNotAnswered");
  }
}

function count() {
  const sum = { bids: 0, pushes: 0 };
  for (const bidder of bidders) {
    sum.bids += bidder.answered.size;
    sum.pushes += bidder.pushed.size;
    for (const [key, value] of Object.entries(bidder.counts)) sum[key] = (sum[key] ?? 0) + value;
    bidder.counts = {};
  }
  return sum;
}

serve({
  async start({ url, clients, lots }) {
    for (let n = 0; n < clients; n++) bidders.push(new Bidder(n, url, `lot ${Math.floor(n / 2) % lots}`));
    for (const bidder of bidders) await bidder.begin();
  },
  count,
  async finish() {
    isOver = true;
    await Promise.all(bidders.map((bidder) => bidder.bidding));
    // Messages to a client arrive in order, so this follows the last push of its lot.
    await Promise.all(bidders.map((bidder) => bidder.compare()));
    return count();
  },
});
