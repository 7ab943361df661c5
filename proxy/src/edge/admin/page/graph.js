// The fleet as a picture: clients on the left, nodes in the middle, app servers on the right. On a narrow screen the
// clients are above their node.
//
// Few clients are drawn one by one, each with its path to its app server. Many are drawn as circles by node and hub,
// with areas proportional to their numbers, so the picture has the same size for twenty clients and for a million.

import { draw, keyed, pressed, setText, set } from "./dom.js";
import { age, bytes, count, percent, plural, rate, short } from "./format.js";
import { appLabel, appOfClient, isMissed, isWebhook, rowStateOf, webhookLatency, webhookState } from "./nodes.js";

const WIDE = {
  width: 1080,
  node: { x: 430, width: 220, height: 84, nameChars: 17, track: 92 },
  app: { x: 830, width: 236, height: 58, nameChars: 20, longChars: 15, detailChars: 14 },
  circleMax: 40,
};
const NARROW = {
  isNarrow: true,
  width: 340,
  node: { x: 1, width: 146, height: 84, nameChars: 11, track: 60 },
  app: { x: 193, width: 146, height: 58, nameChars: 20, longChars: 13, detailChars: 0 },
  circleMax: 22,
};
const narrow = matchMedia("(max-width: 640px)");
const GAP = 22;
const TOP = 34;
const DOT = { radius: 6.5, step: 21, perColumn: 8, column: 62, toNode: 130, bow: 46, perRow: 8, row: 18.5 };
// Space between the circles of hubs, and between clients and the node below them.
const SPACE = 12;
const CIRCLE_MIN = 9;
// Smallest distance of the nodes from the left edge, and the room of the clients there.
const NODE_X_MIN = 280;
const CLIENTS_X = 48;
// Maximum number of clients of all nodes drawn one by one.
const DOTS_MAX = 100;
// Maximum number of hubs with a webhook that are drawn one by one.
const WEBHOOKS_MAX = 6;

// Time and number of lost app servers that are shown.
const LOST_SHOWN_MS = 600_000;
const LOST_MAX = 5;

const curve = (x1, y1, x2, y2) => {
  const bend = (x2 - x1) * 0.45;
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
};

// Room for a name beside a number, in characters.
const room = (chars, number) => chars - Math.max(0, number.length - 2);

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export class Graph {
  constructor(place, { openClient, showClients }) {
    this.act = { openClient, showClients };
    this.layers = ["links", "edges", "clients", "nodes", "apps"].map((name) => draw("g", { class: name }));
    this.columns = ["Clients", "Nodes", "App servers"].map((text) => draw("text", { y: 14, class: "column" }, text));
    const columns = draw("g", { "aria-hidden": "true" }, ...this.columns);
    this.svg = draw("svg", { role: "group", "aria-labelledby": "graph-title", "aria-describedby": "graph-text" }, columns, ...this.layers);
    narrow.addEventListener("change", () => this.redraw());
    this.place = place;
    this.legend = document.getElementById("legend");
    this.hubs = [];
    this.lost = new Map();
  }

  // Boxes have the sizes of a layout, so another layout needs new ones.
  redraw() {
    for (const layer of this.layers) {
      layer.replaceChildren();
      layer.known?.clear();
    }
    if (this.fleet) this.show(this.fleet);
  }

  show(fleet) {
    // Before the first data there is nothing to place.
    if (!this.svg.isConnected) this.place.append(this.svg);
    this.fleet = fleet;
    const total = fleet.nodes.reduce((all, node) => all + node.clients, 0);
    const isSingle = total <= DOTS_MAX && fleet.nodes.every((node) => node.individuals);
    this.updateHubs(fleet);
    this.at = narrow.matches ? NARROW : WIDE;
    const nodes = this.placeNodes(fleet, isSingle);
    const apps = this.placeApps(fleet, nodes.height);
    const height = Math.max(nodes.height, apps.height, 120);
    const left = Math.min(0, nodes.left - SPACE);
    set(this.svg, "viewBox", `${left} 0 ${this.at.width - left} ${height}`);
    [nodes.left, this.at.node.x, this.at.app.x].forEach((x, index) => set(this.columns[index], "x", x));
    set(this.columns[0], "visibility", this.at.isNarrow ? "hidden" : undefined);
    const [links, edges, clients, nodeLayer, appLayer] = this.layers;
    this.showLinks(links, nodes, apps);
    this.showNodes(nodeLayer, nodes.all);
    this.showApps(appLayer, [...apps.all.values()]);
    this.showDots(edges, clients, nodes.all, isSingle);
    this.showLegend(fleet);
    const every = fleet.nodes.flatMap((node) => node.links);
    const instances = new Set(every.filter((link) => !isWebhook(link)).map((link) => link.app));
    const webhooks = new Set(every.filter(isWebhook).map((link) => link.hub));
    setText(this.columns[2], webhooks.size > 0 ? (instances.size > 0 ? "App servers, webhooks" : "Webhooks") : "App servers");
    const parts = [plural(fleet.nodes.length, "node"), plural(instances.size, "app server"), ...(webhooks.size ? [plural(webhooks.size, "webhook")] : [])];
    const text = `${plural(total, "client")} at ${parts.join(", ")}. The lists below show the same.`;
    setText(document.getElementById("graph-text"), text);
  }

  updateHubs(fleet) {
    for (const hub of fleet.nodes.flatMap((node) => node.hubs.map((hub) => hub.name))) {
      if (!this.hubs.includes(hub)) this.hubs.push(hub);
    }
  }

  colour(hub) {
    return `hub${Math.max(0, this.hubs.indexOf(hub)) % 6}`;
  }

  placeNodes(fleet, isSingle) {
    const largest = Math.max(1, ...fleet.nodes.flatMap((node) => node.hubs.map((hub) => hub.clients)));
    const marksOf = (node) => (isSingle ? this.dotsOf(node) : this.circlesOf(node, largest));
    const marked = fleet.nodes.map((node) => ({ node, marks: marksOf(node) }));
    return this.at.isNarrow ? this.stack(marked) : this.lineUp(marked);
  }

  // Wide: a node is as high as the clients to its left. Nodes are as far left as the clients permit.
  lineUp(marked) {
    const reach = Math.max(0, ...marked.map(({ marks }) => marks.reach));
    const x = Math.min(WIDE.node.x, Math.max(NODE_X_MIN, CLIENTS_X + reach + DOT.toNode));
    this.at = { ...WIDE, node: { ...WIDE.node, x } };
    const right = x - DOT.toNode;
    let y = TOP;
    const all = marked.map(({ node, marks }) => {
      const height = Math.max(WIDE.node.height, marks.height);
      const top = y + (height - marks.height) / 2;
      const placed = { node, middle: y + height / 2, marks: marks.all.map((mark) => ({ ...mark, x: right + mark.x, cy: top + mark.y })) };
      y += height + GAP;
      return placed;
    });
    return { all, height: y, left: right - reach };
  }

  // Narrow: the clients of a node are above it.
  stack(marked) {
    let y = TOP;
    const all = marked.map(({ node, marks }) => {
      const top = y + marks.height + SPACE;
      const placed = { node, middle: top + NARROW.node.height / 2, marks: marks.all.map((mark) => ({ ...mark, cy: y + mark.y })) };
      y = top + NARROW.node.height + GAP;
      return placed;
    });
    return { all, height: y, left: SPACE };
  }

  dotsOf(node) {
    if (this.at.isNarrow) return this.dotRows(node.individuals);
    // Columns curve away from the node, so that no lines overlap.
    const columns = Math.max(1, Math.ceil(node.individuals.length / DOT.perColumn));
    const perColumn = Math.ceil(node.individuals.length / columns);
    const height = perColumn * DOT.step;
    const all = node.individuals.map((client, index) => {
      const column = Math.floor(index / perColumn);
      const inColumn = Math.min(perColumn, node.individuals.length - column * perColumn);
      const y = height / 2 + ((index % perColumn) - (inColumn - 1) / 2) * DOT.step;
      const off = (y - height / 2) / Math.max(DOT.step * 4, height / 2);
      return { client, x: -column * DOT.column - DOT.bow * (1 - off * off), y };
    });
    return { all, height, reach: (columns - 1) * DOT.column + DOT.bow };
  }

  dotRows(clients) {
    const all = clients.map((client, index) => {
      const x = NARROW.node.x + 10 + (index % DOT.perRow) * DOT.row;
      return { client, x, y: 8 + Math.floor(index / DOT.perRow) * DOT.row };
    });
    return { all, height: Math.ceil(clients.length / DOT.perRow) * DOT.row };
  }

  circlesOf(node, largest) {
    const hubs = node.hubs.filter((hub) => hub.clients > 0).sort((one, other) => other.clients - one.clients);
    const most = this.at.isNarrow ? 2 : 4;
    const shown = hubs.slice(0, most);
    const others = hubs.slice(most);
    if (others.length > 0) {
      const clients = others.reduce((all, hub) => all + hub.clients, 0);
      shown.push({ name: null, clients, many: others.length });
    }
    const max = this.at.circleMax;
    // A number below a small circle needs some room, too.
    const [least, space] = this.at.isNarrow ? [40, 6] : [0, SPACE];
    let reach = 0;
    const marks = shown.map((hub) => {
      const radius = Math.max(CIRCLE_MIN, max * Math.sqrt(Math.min(1, hub.clients / largest)));
      const width = Math.max(least, 2 * radius);
      const mark = { hub, radius, x: reach + width / 2, y: max };
      reach += width + space;
      return mark;
    });
    const all = marks.map((mark) => ({ ...mark, x: this.at.isNarrow ? NARROW.node.x + mark.x : -mark.x }));
    // The number of a small circle is below it.
    return { all, height: 2 * max + (this.at.isNarrow && marks.length ? 10 : 0), reach };
  }

  // All webhooks have one instance id, and are drawn by hub if they are few.
  keyOf(link) {
    return isWebhook(link) && !this.mergesWebhooks ? `${link.app} ${link.hub}` : link.app;
  }

  placeApps(fleet, height) {
    const all = new Map();
    const every = fleet.nodes.flatMap((node) => node.links);
    this.mergesWebhooks = new Set(every.filter(isWebhook).map((link) => link.hub)).size > WEBHOOKS_MAX;
    for (const link of every) {
      const app = all.get(this.keyOf(link)) ?? { ...link, id: link.app, key: this.keyOf(link), label: appLabel(link), hubs: new Set(), clients: 0, open: 0, size: 0 };
      app.hubs.add(link.hub);
      app.clients += link.clients;
      app.open += link.open;
      app.size += link.open + link.resuming + link.down;
      app.isLeaving ||= link.isLeaving;
      app.webhook = worse(app.webhook, link.webhook);
      all.set(app.key, app);
    }
    const sorted = [...all.values(), ...this.lostApps(all)].sort((one, other) => one.label.localeCompare(other.label) || one.key.localeCompare(other.key));
    const { height: own } = this.at.app;
    const needed = sorted.length * (own + GAP);
    let y = Math.max(TOP, TOP + (height - TOP - needed) / 2);
    for (const app of sorted) {
      Object.assign(app, { y, middle: y + own / 2 });
      y += own + GAP;
    }
    return { all: new Map(sorted.map((app) => [app.key, app])), height: y };
  }

  showLinks(layer, nodes, apps) {
    const ways = nodes.all.flatMap(({ node, middle }) => {
      const byApp = new Map();
      for (const link of node.links) {
        const key = this.keyOf(link);
        const way = byApp.get(key) ?? { node, app: apps.all.get(key), middle, open: 0, size: 0, clients: 0 };
        way.open += link.open;
        way.size += link.open + link.resuming + link.down;
        way.clients += link.clients;
        way.webhook = worse(way.webhook, link.webhook);
        byApp.set(key, way);
      }
      return [...byApp.values()];
    });
    const most = Math.max(1, ...ways.map((way) => way.clients));
    const { node, app } = this.at;
    const key = (way) => `${way.node.instance} ${way.app.key}`;
    const create = (way) =>
      draw("g", { class: "way", "data-node": way.node.name, "data-app": way.app.id, "data-key": way.app.key },
        draw("path", { class: "line" }), draw("path", { class: "flow" }), draw("title"));
    keyed(layer, ways, key, create, (element, way) => {
      const [line, flow, title] = element.children;
      const path = curve(node.x + node.width, way.middle, app.x, way.app.middle);
      set(line, "d", path);
      set(flow, "d", path);
      line.style.strokeWidth = (1.5 + 6 * Math.sqrt(way.clients / most)).toFixed(1);
      const ofLinks = way.open === way.size ? "open" : way.open > 0 ? "part" : "down";
      set(element, "data-state", isWebhook(way.app) ? (way.webhook?.failingSinceMs ? "down" : "open") : ofLinks);
      set(element, "data-mirror", way.app.isMirror || undefined);
      set(element, "data-clients", way.clients);
      set(element, "data-open", way.open);
      set(flow, "data-flow", speed(way.node.rates));
      const state = isWebhook(way.app) ? webhookState(way.webhook, this.fleet.atMs) : `${way.open} of ${plural(way.size, "link")} open`;
      setText(title, `${way.node.name} → ${way.app.label}: ${state}, ${plural(way.clients, "client")} assigned there`);
    });
  }

  showNodes(layer, placed) {
    const { x, width, height, nameChars, track } = this.at.node;
    const create = ({ node }) => {
      const box = draw("g", { class: "box node", role: "button", tabindex: 0, "data-name": node.name },
        draw("rect", { width, height, rx: 10 }),
        draw("text", { class: "name", x: 14, y: 24 }), draw("text", { class: "big", x: width - 14, y: 24 }),
        draw("text", { class: "small", x: 14, y: 43 }), draw("text", { class: "small end", x: width - 14, y: 43 }),
        draw("rect", { class: "track", x: 14, y: 55, width: track, height: 5, rx: 2.5 }),
        draw("rect", { class: "level", x: 14, y: 55, height: 5, rx: 2.5 }),
        draw("text", { class: "tiny", x: 14, y: 74 }), draw("text", { class: "tiny end", x: width - 14, y: 74 }), draw("title"));
      return pressed(box, () => this.act.showClients({ node: node.name }));
    };
    keyed(layer, placed, ({ node }) => node.instance, create, (element, { node, middle }) => {
      const [, name, clients, up, down, , level, cpu, memory, title] = element.children;
      const share = Math.min(1, (node.process.cpuPercent ?? 0) / (100 * Math.max(1, node.host.cores)));
      set(element, "transform", `translate(${x} ${middle - height / 2})`);
      set(element, "data-state", rowStateOf(node));
      setText(clients, short(node.clients));
      setText(name, cut(node.name, room(nameChars, short(node.clients))));
      setText(up, `↑ ${rate(node.rates?.messagesUp)}`);
      setText(down, `↓ ${rate(node.rates?.deliveries)}`);
      set(level, "width", (track * share).toFixed(1));
      setText(cpu, `CPU ${percent(node.process.cpuPercent)}`);
      setText(memory, `${bytes(node.process.memoryBytes)}`);
      const problem = isMissed(node) ? `. It is ${node.state}` : node.notReady.length ? `. Not ready: ${node.notReady.join("; ")}` : "";
      set(element, "aria-label", `Node ${node.name}, ${plural(node.clients, "client")}${problem}. List them`);
      setText(title, `${node.name}\n${node.address}\nversion ${node.version}${problem}`);
    });
  }

  showApps(layer, apps) {
    const { x, width, height, nameChars, longChars, detailChars } = this.at.app;
    // Without room for details, the number of clients is in their place.
    const bigY = detailChars ? 24 : 44;
    const create = (app) =>
      draw("g", { class: "box app", role: "img", "data-app": app.id },
        draw("rect", { width, height, rx: 10 }),
        draw("text", { class: "name", x: 14, y: 24 }), draw("text", { class: "big", x: width - 14, y: bigY }),
        draw("text", { class: "small", x: 14, y: 44 }), draw("text", { class: "small end", x: width - 14, y: 44 }), draw("title"));
    keyed(layer, apps, (app) => app.key, create, (element, app) => {
      const [, name, clients, links, hubs, title] = element.children;
      set(element, "transform", `translate(${x} ${app.y})`);
      const isFailing = app.lostAt || (isWebhook(app) && app.webhook?.failingSinceMs);
      set(element, "data-state", isFailing ? "down" : app.isLeaving || app.open < app.size ? "part" : "open");
      const [shown, detail] = textsOf(app, this.mergesWebhooks);
      // Digits need less room than letters.
      setText(name, cut(shown, /:\d+$/.test(shown) ? nameChars : nameChars - 5));
      set(name, "data-long", shown.length > longChars);
      setText(clients, short(app.clients));
      const state = this.stateOfApp(app, detailChars ? plural(app.size, "link") : count(app.size));
      setText(links, state);
      setText(hubs, detailChars ? cut(detail, detailChars) : "");
      const told = isWebhook(app) || app.lostAt ? state : `${app.open} of ${plural(app.size, "link")} open`;
      set(element, "aria-label", `${isWebhook(app) ? "Webhook" : "App server"} ${app.label}, ${plural(app.clients, "client")}, ${told}`);
      const lines = [app.appName, app.address, isWebhook(app) ? "" : `instance ${app.id}`, isNamed(app) ? `group ${app.group}` : "", [...app.hubs].join(", ")];
      setText(title, lines.filter(Boolean).join("\n"));
    });
  }

  stateOfApp(app, ofAll) {
    const isShort = this.at.isNarrow;
    if (app.lostAt) return isShort ? "lost" : `lost ${age((Date.now() - app.lostAt) / 1000)} ago`;
    if (app.isLeaving) return "leaving";
    if (!isWebhook(app)) return `${count(app.open)} of ${ofAll}`;
    if (isShort && app.webhook?.failingSinceMs) return "fails";
    const state = webhookState(app.webhook, this.fleet.atMs);
    return state === "answers" && !isShort ? `answers, ${webhookLatency(app.webhook)}` : state;
  }

  // App servers that this page has seen, and that have disappeared without a graceful stop, for ten minutes or until a
  // successor with the same label appears.
  lostApps(all) {
    for (const app of this.seen?.values() ?? []) {
      const isGone = !all.has(app.key) && !app.isLeaving && !isWebhook(app);
      if (isGone && !this.lost.has(app.key)) this.lost.set(app.key, { ...app, clients: 0, open: 0, size: 0, lostAt: Date.now() });
    }
    const labels = new Set([...all.values()].map((app) => app.label));
    for (const [key, app] of this.lost) {
      if (all.has(key) || labels.has(app.label) || Date.now() - app.lostAt > LOST_SHOWN_MS) this.lost.delete(key);
    }
    this.seen = new Map(all);
    return [...this.lost.values()].slice(0, LOST_MAX);
  }

  showDots(edges, layer, placed, isSingle) {
    const marks = placed.flatMap(({ node, middle, marks }) => marks.map((mark) => ({ ...mark, node, middle })));
    const key = ({ client, hub, node }) => (client ? `client ${client.id}` : `hub ${node.instance} ${hub.name}`);
    const create = (mark) => draw("g", { class: "edge" }, draw("path", { class: "line" }));
    keyed(edges, marks, key, create, (element, mark) => {
      set(element.firstChild, "d", this.edgeOf(mark));
      set(element, "data-client", mark.client?.id);
      set(element, "data-hub", mark.client?.hub ?? mark.hub?.name);
      set(element, "data-node", mark.node.name);
      set(element, "data-app", mark.client?.app);
      if (mark.hub) element.firstChild.style.strokeWidth = (1.5 + mark.radius / 6).toFixed(1);
    });
    keyed(layer, marks, key, (mark) => (mark.client ? this.dot(mark) : this.circle(mark)), (element, mark) => {
      set(element, "transform", `translate(${mark.x} ${mark.cy})`);
      if (mark.client) this.tellDot(element, mark);
      else this.tellCircle(element, mark);
    });
    this.svg.dataset.single = isSingle;
  }

  edgeOf({ x, cy, radius = DOT.radius, middle }) {
    const { node } = this.at;
    return this.at.isNarrow ? `M${x} ${cy + radius}V${middle - node.height / 2}` : curve(x + radius, cy, node.x, middle);
  }

  dot({ client }) {
    const dot = draw("g", { class: `dot ${this.colour(client.hub)}`, role: "button", tabindex: 0, "data-id": client.id },
      draw("circle", { class: "target", r: 12 }), draw("circle", { r: DOT.radius }), draw("title"));
    const lead = (isOn) => this.highlight(client.id, isOn);
    for (const [name, isOn] of [["mouseenter", true], ["focus", true], ["mouseleave", false], ["blur", false]]) {
      dot.addEventListener(name, () => lead(isOn));
    }
    return pressed(dot, () => this.act.openClient(client.id));
  }

  tellDot(element, { client, node }) {
    const home = client.app ? `assigned to ${appOfClient(this.fleet, client)}` : "without an app server";
    const text = `Client ${client.user ?? client.id} of ${client.hub} at node ${node.name}, ${home}`;
    set(element, "data-state", client.state);
    set(element, "aria-label", text);
    setText(element.lastChild, text);
  }

  circle({ hub, node }) {
    const colour = hub.name === null ? "others" : this.colour(hub.name);
    const circle = draw("g", { class: `circle ${colour}`, role: "button", tabindex: 0, "data-hub": hub.name ?? "" },
      draw("circle"), draw("text", { class: "count" }), draw("title"));
    return pressed(circle, () => this.act.showClients({ node: node.name, hub: hub.name ?? "" }));
  }

  tellCircle(element, { hub, node, radius }) {
    const [circle, text, title] = element.children;
    const name = hub.name === null ? `${plural(hub.many, "more hub")}` : `hub ${hub.name}`;
    set(circle, "r", radius.toFixed(1));
    set(text, "class", radius < 20 ? "count outside" : "count");
    set(text, "y", radius < 20 ? (radius + 13).toFixed(0) : 4);
    setText(text, short(hub.clients));
    set(element, "data-clients", hub.clients);
    const told = `${plural(hub.clients, "client")} of ${name} at node ${node.name}`;
    set(element, "aria-label", `${told}. List them`);
    setText(title, told);
  }

  // Path of one client to its app server.
  highlight(id, isOn) {
    const [links, edges] = this.layers;
    const edge = [...edges.children].find((edge) => edge.dataset.client === id);
    if (!edge) return;
    edge.classList.toggle("lit", isOn);
    for (const way of links.children) {
      const isIts = way.dataset.node === edge.dataset.node && way.dataset.key === this.keyOf({ app: edge.dataset.app, hub: edge.dataset.hub });
      way.classList.toggle("lit", isOn && isIts);
    }
  }

  showLegend(fleet) {
    const clients = (name) => fleet.nodes.flatMap((node) => node.hubs).filter((hub) => hub.name === name).reduce((all, hub) => all + hub.clients, 0);
    const hubs = this.hubs.slice(0, 6).map((name) => ({ name, clients: clients(name) }));
    const create = ({ name }) => {
      const entry = document.createElement("li");
      entry.className = this.colour(name);
      return entry;
    };
    keyed(this.legend, hubs, ({ name }) => name, create, (element, hub) => setText(element, `${hub.name} ${short(hub.clients)}`));
  }
}

// Of the states of a webhook at several nodes or hubs, the failing one, or else the slower one.
function worse(one, other) {
  if (!one || !other) return one ?? other;
  const rank = (webhook) => (webhook.failingSinceMs ? Number.MAX_SAFE_INTEGER : webhook.latencyUs);
  return rank(other) > rank(one) ? other : one;
}

// With a single group of app servers, the name is unnecessary.
const isNamed = (app) => app.group && app.group !== "default";

// Name and detail of an app server in its box.
function textsOf(app, mergesWebhooks) {
  if (isWebhook(app)) return mergesWebhooks ? [plural(app.hubs.size, "hub"), "webhooks"] : [app.hub, "webhook"];
  if (isNamed(app)) return [app.label, `${app.group}${app.isMirror ? " (mirror)" : ""}`];
  return [app.label, app.label === app.appName ? app.address : app.appName];
}

function speed(rates) {
  const total = (rates?.messagesUp ?? 0) + (rates?.deliveries ?? 0);
  if (total < 1) return "none";
  return total < 100 ? "slow" : total < 5000 ? "medium" : "fast";
}
