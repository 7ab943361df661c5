// Followers that come and go: each follows a record at any node for some seconds, leaves without a word, and goes on
// from its position at another node, until the record is finished. Prints each number that is not the next one.

import * as signalR from "@microsoft/signalr";

const [count, ...records] = JSON.parse(process.argv[2]); // each record: its URLs at the nodes, a token, a group
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const random = (from, to) => from + Math.random() * (to - from);
let done = 0;

function visit(state, url) {
  const connection = new signalR.HubConnectionBuilder()
    .withUrl(url, { accessTokenFactory: () => state.token, transport: signalR.HttpTransportType.WebSockets })
    .configureLogging(signalR.LogLevel.None)
    .build();
  return new Promise((resolve) => {
    const leave = () => resolve(connection.stop().catch(() => {}));
    connection.onclose(resolve);
    setTimeout(leave, random(500, 8000));
    const next = ({ reset, position, arguments: values }) => {
      if (reset || values[0] !== state.next) console.log(`violation ${state.group}: ${reset ?? values[0]} instead of ${state.next}`);
      state.next = (values?.[0] ?? state.next) + 1;
      state.position = position ?? state.position;
    };
    const complete = () => {
      state.isFinished = true;
      leave();
    };
    connection.start().then(
      () => connection.stream("Follow", { group: state.group, after: state.position }).subscribe({ next, complete, error: leave }),
      () => sleep(200).then(leave),
    );
  });
}

async function follow({ urls, token, group }) {
  const state = { token, group, next: 0, position: "0", isFinished: false };
  while (!state.isFinished) await visit(state, urls[Math.floor(random(0, urls.length))]);
  done += 1;
  if (done === count) console.log(`done ${done}`);
}

for (let number = 0; number < count; number += 1) sleep(random(0, 3000)).then(() => follow(records[number % records.length]));
console.log("following");
