// What a client does when it is asked for a result, as a test has ordered it.

import { pack, unpack } from "./values.mjs";
import { emit } from "./lines.mjs";

// Each order makes the handlers of its target: {value}, {throws: text}, {values: [one, each, by, a, handler]}, "nothing",
// or "never". All say that they were asked, by an event.
export function handlersOf(order, client, target) {
  const asked = (args) => emit({ event: "message", client, target, arguments: pack(args) });
  const handler = (answer) => (...args) => {
    asked(args);
    return answer();
  };
  if (order === "nothing") return [handler(() => undefined)];
  if (order === "never") return [handler(() => new Promise(() => {}))];
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
