// Nodes, links and hubs as tables: the numbers behind the picture.

import { keyed, make, setText, set } from "./dom.js";
import { age, bytes, count, milliseconds, percent, protocol, rate, short, transport } from "./format.js";

// A table that reuses its rows. Columns are [heading, text of a row, kind], acts [name of a button, function of a row].
export class Table {
  constructor(caption, columns, { id, press, keyOf, acts = [] }) {
    this.columns = columns;
    this.acts = acts;
    this.keyOf = keyOf;
    this.press = press;
    this.body = make("tbody", { role: "rowgroup" });
    const heads = columns.map(([heading, , kind]) => make("th", { scope: "col", role: "columnheader", class: kind }, heading));
    if (acts.length) heads.push(make("th", { scope: "col", role: "columnheader", class: "acts" }, make("span", { class: "quiet" }, "Acts")));
    // Roles, because rows that are styled as cards on a narrow screen lose theirs in some browsers.
    const table = make("table", { id, role: "table" }, make("caption", { class: "quiet" }, caption),
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), this.body);
    this.element = make("div", { class: "scroll" }, table);
    this.empty = make("p", { class: "empty" }, "Loading…");
    this.element.append(this.empty);
  }

  show(rows) {
    this.empty.hidden = rows.length > 0;
    setText(this.empty, "Nothing here.");
    const create = (row) => {
      const cells = this.columns.map(([heading, , kind], index) =>
        index === 0 ? make("th", { scope: "row", role: "rowheader", class: kind }) : make("td", { role: "cell", class: kind, "data-label": heading }));
      if (this.press) cells[0].append(make("button", { type: "button", class: "plain", onclick: () => this.press(row) }));
      if (this.acts.length) {
        const buttons = this.acts.map(([name, act]) => make("button", { type: "button", onclick: () => act(row) }, name));
        cells.push(make("td", { role: "cell", class: "acts" }, ...buttons));
      }
      return make("tr", { role: "row", "data-key": this.keyOf(row) }, ...cells);
    };
    keyed(this.body, rows, this.keyOf, create, (element, row) => {
      this.columns.forEach(([, text], index) => {
        const cell = element.children[index];
        setText(cell.firstElementChild ?? cell, text(row));
      });
      set(element, "data-state", row.rowState);
    });
  }
}

// For example 1.8 of 23.5 GiB.
function share(used, all) {
  if (!all) return "–";
  const [part, whole] = [bytes(used), bytes(all)].map((text) => text.replace(" ", "\u00a0"));
  const [number, unit] = part.split("\u00a0");
  return `${whole.endsWith(`\u00a0${unit}`) ? number : part} of ${whole}`;
}

const bare = (url) => url?.replace(/^http:\/\//, "");
const counts = (pairs, name) => pairs.map(([label, clients]) => `${name(label)} ${short(clients)}`).join(", ");

// For such a node, the last known numbers are shown.
export const isMissed = (node) => node.state === "late" || node.state === "unreachable";

const stateOf = (node) => (isMissed(node) || node.state === "draining" ? node.state : node.notReady.join("; ") || [node.state, ...node.warnings].join("; "));

export const rowStateOf = (node) => (isMissed(node) ? "down" : node.state !== "ready" || node.notReady.length || node.warnings.length ? "part" : "open");

// State of the store of a node, which may have none.
const storeState = (store) => {
  if (!store) return "–";
  const waiting = store.unwritten ? `, ${count(store.unwritten)} unwritten` : "";
  return `${store.isConnected ? "connected" : "away"}${waiting}`;
};

export const nodesTable = (press, acts) =>
  new Table("Nodes", [
    ["Node", (node) => node.name],
    ["State", stateOf],
    ["Lag", (node) => `${count(node.lagMs)} ms`, "number"],
    ["Clients", (node) => count(node.clients), "number"],
    ["Up", (node) => rate(node.rates?.messagesUp), "number"],
    ["Deliveries", (node) => rate(node.rates?.deliveries), "number"],
    ["Links ↑", (node) => (node.rates ? `${bytes(node.rates.bytesUp)}/s` : "–"), "number"],
    ["Links ↓", (node) => (node.rates ? `${bytes(node.rates.bytesDown)}/s` : "–"), "number"],
    ["CPU", (node) => percent(node.process.cpuPercent), "number"],
    ["Memory", (node) => bytes(node.process.memoryBytes), "number"],
    ["Host", (node) => `${percent(node.host.cpuPercent)}, ${share(node.host.memoryUsedBytes, node.host.memoryBytes)}`, "number long"],
    ["Waiting", (node) => bytes(node.outboxBytes), "number"],
    ["Store", (node) => storeState(node.store)],
    ["Runs", (node) => age(node.uptimeS), "number"],
    ["Version", (node) => node.version],
    ["Address", (node) => bare(node.address), "long"],
  ], { id: "nodes", press, acts, keyOf: (node) => node.instance });

// Instance id of all webhooks.
const WEBHOOK = "?webhook";

export const isWebhook = ({ app }) => app === WEBHOOK;

// An app server is known by its address; one that dials in by its name, because nodes don't report its address, and a
// webhook by its hub.
export function appLabel({ app, hub, appName, address }) {
  if (isWebhook({ app })) return `webhook of ${hub}`;
  return /^https?:/.test(address) ? bare(address) : appName || app;
}

// The label, and the name that the operator or the machine has given.
function appText(link) {
  const [label, { appName }] = [appLabel(link), link];
  return !appName || appName === label || isWebhook(link) ? label : `${label} (${appName})`;
}

// App server of a client. Clients are listed without its address, which its links have.
export function appOfClient(fleet, { app, hub, appName = "" }) {
  if (!app) return "none";
  const links = (fleet?.nodes ?? []).flatMap((node) => node.links);
  return appText(links.find((link) => link.app === app && link.hub === hub) ?? { app, hub, appName, address: "" });
}

export const linksTable = () =>
  new Table("Links", [
    ["Node", (link) => link.node],
    ["Hub", (link) => link.hub],
    ["App server", (link) => (link.isLeaving ? `${appLabel(link)} (leaving)` : appLabel(link)), "long"],
    ["Name", (link) => (isWebhook(link) ? "" : link.appName)],
    ["Instance", (link) => (isWebhook(link) ? "" : link.app), "mono long"],
    ["Group", (link) => (link.isMirror ? `${link.group} (mirror)` : link.group)],
    ["Open", (link) => count(link.open), "number"],
    ["Resuming", (link) => count(link.resuming), "number"],
    ["Down", (link) => count(link.down), "number"],
    ["Clients", (link) => count(link.clients), "number"],
  ], { id: "links", keyOf: (link) => `${link.instance} ${link.hub} ${link.app}` });

// State of a webhook's back end, in words.
export const webhookState = (webhook, atMs) => {
  if (!webhook) return "unknown";
  if (webhook.failingSinceMs) return `fails for ${age((atMs - webhook.failingSinceMs) / 1000)}`;
  return webhook.requests > 0 ? "answers" : "no request yet";
};

export const webhookLatency = (webhook) => (webhook?.requests > 0 ? milliseconds(webhook.latencyUs) : "–");

export const webhooksTable = () =>
  new Table("Webhooks", [
    ["Node", (link) => link.node],
    ["Hub", (link) => link.hub],
    ["State", (link) => link.stateText],
    ["Latency", (link) => webhookLatency(link.webhook), "number"],
    ["Requests", (link) => count(link.webhook?.requests), "number"],
    ["Failed", (link) => count(link.webhook?.failures), "number"],
    ["In flight", (link) => count(link.webhook?.inFlight), "number"],
    ["Clients", (link) => count(link.clients), "number"],
    ["URL", (link) => link.address.replace(/^webhook /, ""), "long"],
    ["Last problem", (link) => link.webhook?.problem ?? "", "wide"],
  ], { id: "webhooks", keyOf: (link) => `${link.instance} ${link.hub}` });

export const hubsTable = (press, acts) =>
  new Table("Hubs", [
    ["Hub", (hub) => hub.name],
    ["Path", (hub) => hub.path],
    ["Clients", (hub) => count(hub.clients), "number"],
    ["Without app server", (hub) => count(hub.homeless), "number"],
    ["Transports", (hub) => counts(hub.transports, transport), "wide"],
    ["Protocols", (hub) => counts(hub.protocols, protocol), "wide"],
  ], { id: "hubs", press, acts, keyOf: (hub) => hub.name });

export const rulesTable = () =>
  new Table("Rules", [
    ["Node", (rule) => rule.node],
    ["Name", (rule) => rule.label],
    ["Rule", (rule) => rule.text, "wide"],
    ["Count", (rule) => (rule.count === null ? "–" : count(rule.count)), "number"],
    ["Rate", (rule) => (rule.perSecond === null ? "–" : rate(rule.perSecond)), "number"],
    ["Dropped", (rule) => (rule.kind === "mirror" ? count(rule.dropped) : "–"), "number"],
  ], { id: "rules", keyOf: (rule) => `${rule.instance} ${rule.kind} ${rule.label}` });

const ofNodes = (fleet, of) =>
  fleet.nodes.flatMap((node) => (of(node) ?? []).map((one) => ({ ...one, node: node.name, instance: node.instance })));

export const rulesOf = (fleet) => ofNodes(fleet, (node) => node.rules);

export const webhooksOf = (fleet) =>
  ofNodes(fleet, (node) => node.links.filter(isWebhook)).map((link) => ({
    ...link,
    stateText: webhookState(link.webhook, fleet.atMs),
    rowState: link.webhook?.failingSinceMs ? "down" : "open",
  }));

// Webhooks have requests instead of links.
export const linksOf = (fleet) =>
  fleet.nodes.flatMap((node) =>
    node.links.filter((link) => !isWebhook(link)).map((link) => ({ ...link, node: node.name, instance: node.instance, rowState: link.open === 0 ? "down" : link.down + link.resuming > 0 ? "part" : "open" })),
  );

// A hub is one row, regardless of the number of nodes.
export function hubsOf(fleet) {
  const hubs = new Map();
  const add = (all, pairs) => {
    for (const [label, clients] of pairs) all.set(label, (all.get(label) ?? 0) + clients);
  };
  for (const hub of fleet.nodes.flatMap((node) => node.hubs)) {
    const known = hubs.get(hub.name) ?? { name: hub.name, path: hub.path, clients: 0, homeless: 0, transports: new Map(), protocols: new Map() };
    known.clients += hub.clients;
    known.homeless += hub.homeless;
    add(known.transports, hub.transports);
    add(known.protocols, hub.protocols);
    hubs.set(hub.name, known);
  }
  return [...hubs.values()]
    .map((hub) => ({ ...hub, transports: [...hub.transports], protocols: [...hub.protocols] }))
    .sort((one, other) => one.name.localeCompare(other.name));
}
