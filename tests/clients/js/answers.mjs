// Behaviour of a client when a result is requested, as set by a test.

import { pack, unpack } from "./values.mjs";
import { emit } from "./lines.mjs";

// Each order sets the handlers of its target: {value}, {throws: text}, {values: [one, per, handler]}, "nothing",
// "never", or "held": answered by `answerHeld`. All report each request by an event.
export function handlersOf(order, client, target) {
  const asked = (args) => emit({ event: "message", client, target, arguments: pack(args) });
  const handler = (answer) => (...args) => {
    asked(args);
    return answer();
  };
  if (order === "nothing") return [handler(() => undefined)];
  if (order === "never") return [handler(() => new Promise(() => {}))];
  if (order === "held") return [handler(() => new Promise((resolve) => heldOf(client, target).push(resolve)))];
  if ("throws" in order) {
    return [
      handler(() => {
        throw new Error(order.throws);
      }),
    ];
  }
  const values = order.values ?? [order.value];
  return values.map((value) => handler(() => unpack(value)));
}

// Requests that wait for the test, by client and target, in order.
const held = new Map();

function heldOf(client, target) {
  const key = `${client} ${target}`;
  if (!held.has(key)) held.set(key, []);
  return held.get(key);
}

// Answers a held request, by index from zero.
export function answerHeld({ client, target, question, value }) {
  heldOf(client, target)[question](unpack(value));
}
