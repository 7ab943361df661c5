// What is wrong now: a banner with the active conditions of all nodes, and the history of the last day.

import { read } from "./api.js";
import { byId, keyed, make, setText, set } from "./dom.js";
import { age, plural } from "./format.js";

// List that shows the subject of a condition, by the beginning of the condition's name.
const LISTS = [
  ["hub-", "hubs"],
  ["webhook-", "webhooks"],
  ["app-server-", "links"],
  ["links-", "links"],
  ["clients-", "clients"],
  ["slow-", "clients"],
];

const HISTORY_MS = 10000;

// A condition of several nodes is one row. Errors are first.
function rowsOf(fleet) {
  const rows = new Map();
  for (const one of fleet.nodes.flatMap((node) => node.conditions ?? [])) {
    const key = `${one.severity} ${one.name} ${one.subject}`;
    const row = rows.get(key) ?? { ...one, key, nodes: [] };
    row.nodes.push(one.node);
    row.sinceMs = Math.min(row.sinceMs, one.sinceMs);
    rows.set(key, row);
  }
  return [...rows.values()].sort((one, other) => one.key.localeCompare(other.key));
}

const whereOf = (row, now) => `at ${row.nodes.join(", ")}, for ${age((now - row.sinceMs) / 1000)}`;

export class Conditions {
  constructor(choose) {
    this.choose = choose;
    this.historyAt = 0;
    byId("history").addEventListener("toggle", () => this.showHistory());
  }

  show(fleet) {
    const rows = rowsOf(fleet);
    const errors = rows.filter((row) => row.severity === "error").length;
    byId("wrong").hidden = rows.length === 0;
    set(byId("wrong"), "data-severity", errors > 0 ? "error" : "warning");
    setText(byId("wrong-title"), `What is wrong now: ${plural(errors, "error")}, ${plural(rows.length - errors, "warning")}`);
    keyed(byId("wrong-list"), rows, (row) => row.key, (row) => this.make(row), (element, row) => {
      setText(element.querySelector(".detail"), row.detail);
      setText(element.querySelector(".small"), whereOf(row, fleet.atMs));
    });
    if (Date.now() - this.historyAt > HISTORY_MS) this.showHistory();
    return rows.length;
  }

  make(row) {
    const list = LISTS.find(([start]) => row.name.startsWith(start))?.[1] ?? "nodes";
    return make("li", { "data-severity": row.severity, id: `wrong-${row.name}` },
      make("b", {}, row.text), " ",
      make("button", { type: "button", class: "plain", onclick: () => this.choose(list) }, row.subject), " ",
      make("span", { class: "detail" }), " ",
      make("span", { class: "small" }),
      make("p", {}, `→ ${row.remedy}`));
  }

  async showHistory() {
    this.historyAt = Date.now();
    const answer = await read("/api/conditions");
    if (!answer.ok) return;
    const ended = answer.value.conditions.filter((one) => one.endedMs);
    byId("history").hidden = ended.length === 0;
    setText(byId("history-count"), `${plural(ended.length, "condition")} ended in the last day`);
    const textOf = (one) =>
      `${new Date(one.sinceMs).toLocaleTimeString("en-GB")} at ${one.node}, for ${age((one.endedMs - one.sinceMs) / 1000)}: ${one.text}: ${one.subject}: ${one.detail}`;
    const keyOf = (one) => `${one.node} ${one.name} ${one.subject} ${one.sinceMs}`;
    keyed(byId("history-list"), ended, keyOf, (one) => make("li", { "data-severity": one.severity }), (element, one) => setText(element, textOf(one)));
  }
}
