// Keeps the page up to date: one event stream covers the whole fleet, and each part shows its own data.

import { offerAnnouncing, watchAnnouncing } from "./announce.js";
import { HOME, read, send } from "./api.js";
import { closeClient, openClient, openPast, refreshClient } from "./client.js";
import { Conditions } from "./conditions.js";
import { byId, keyed, make, setText, set } from "./dom.js";
import { bytes, count, percent, plural, rate, short } from "./format.js";
import { Graph } from "./graph.js";
import { Lists } from "./lists.js";
import { linksOf, webhooksOf } from "./nodes.js";
import { Timeline } from "./timeline.js";

// Restarts a silent stream.
const SILENCE_MS = 5000;

const state = { fleet: null, access: "read", canLogIn: false };
const open = (id) => openClient(id, state, (traced) => lists.traceClient(traced));
const lists = new Lists({ openClient: open, state });
const conditions = new Conditions((list) => {
  lists.choose(list);
  byId("lists").scrollIntoView({ block: "nearest" });
  byId(`tab-${list}`).focus();
});
const graph = new Graph(byId("graph"), {
  openClient: open,
  showClients: (filter) => lists.showClients(filter),
});

let stream = null;
let lastHeard = 0;

function listen() {
  stream?.close();
  stream = new EventSource(`${HOME}/api/events`);
  lastHeard = Date.now();
  stream.addEventListener("fleet", (event) => {
    lastHeard = Date.now();
    state.fleet = JSON.parse(event.data);
    show(state.fleet);
  });
}

setInterval(() => {
  const isLate = Date.now() - lastHeard > SILENCE_MS / 2;
  if (isLate) tellLive(false);
  if (Date.now() - lastHeard > SILENCE_MS) {
    // The session may have ended, or the node may be gone.
    checkAccess();
    listen();
  }
}, 1000);

function tellLive(isLive) {
  setText(byId("live"), isLive ? "live" : "no news: connecting again");
  byId("live").dataset.live = isLive;
}

function show(fleet) {
  tellLive(true);
  byId("loading").hidden = true;
  conditions.show(fleet);
  sum(fleet);
  graph.show(fleet);
  lists.show(fleet);
  refreshClient(fleet);
}

function total(fleet, of) {
  return fleet.nodes.reduce((all, node) => all + (of(node) ?? 0), 0);
}

function sum(fleet) {
  const all = linksOf(fleet);
  const apps = new Set(all.map((link) => link.app));
  const open = all.reduce((sum, link) => sum + link.open, 0);
  const links = all.reduce((sum, link) => sum + link.open + link.resuming + link.down, 0);
  const isUnserved = fleet.nodes.some((node) => node.conditions?.some((one) => one.name === "hub-without-app-server"));
  const hasAppServers = apps.size > 0 || isUnserved || webhooksOf(fleet).length === 0;
  const isKnown = fleet.nodes.some((node) => node.rates);
  const perSecond = (of) => (isKnown ? rate(total(fleet, (node) => node.rates && of(node.rates))) : "–");
  const facts = [
    ["Clients", short(total(fleet, (node) => node.clients)), "clients"],
    ["Nodes", count(fleet.nodes.length), "nodes"],
    ...(hasAppServers
      ? [
          ["App servers", count(apps.size), "apps", isUnserved],
          ["Links open", `${count(open)} of ${count(links)}`, "links", open < links || (isUnserved && links === 0)],
        ]
      : []),
    ...webhookFacts(fleet),
    ["Messages up", perSecond((rates) => rates.messagesUp), "up"],
    ["Deliveries", perSecond((rates) => rates.deliveries), "down"],
    ["Node CPU", percent(isKnown ? total(fleet, (node) => node.process.cpuPercent) : null), "cpu"],
    ["Node memory", bytes(total(fleet, (node) => node.process.memoryBytes)), "memory"],
    ...rebalancesOf(fleet),
  ];
  keyed(
    byId("sum"),
    facts,
    ([name]) => name,
    ([name, , id]) => make("div", {}, make("dt", {}, name), make("dd", { id: `sum-${id}` })),
    (element, [, value, , isBad]) => {
      setText(element.lastChild, value);
      set(element.lastChild, "data-bad", isBad);
    },
  );
  document.title = `${plural(total(fleet, (node) => node.clients), "client")} · Trunkline`;
}

// Webhooks whose back ends answer, by hub.
function webhookFacts(fleet) {
  const webhooks = webhooksOf(fleet);
  if (webhooks.length === 0) return [];
  const hubs = new Set(webhooks.map((link) => link.hub));
  const failing = new Set(webhooks.filter((link) => link.webhook?.failingSinceMs).map((link) => link.hub));
  return [["Webhooks answering", `${count(hubs.size - failing.size)} of ${count(hubs.size)}`, "webhooks", failing.size > 0]];
}

// Clients moved by a rebalance, while it runs and for a minute afterwards.
function rebalancesOf(fleet) {
  const shown = fleet.nodes.map((node) => node.rebalance).filter(Boolean);
  const latest = shown.sort((one, other) => other.begun_ms - one.begun_ms)[0];
  if (!latest) return [];
  return [[`Rebalance (${latest.state})`, `${count(latest.moved)} of ${count(latest.planned)}`, "rebalance"]];
}

// ------------------------------------------------------------------------------------------- session

async function checkAccess() {
  const answer = await read("/api/session");
  if (answer.status === 401) return location.reload();
  if (!answer.ok) return;
  Object.assign(state, answer.value);
  const mayAct = state.access === "act";
  setText(byId("access"), mayAct ? "may act" : "read-only");
  byId("access").title = mayAct || state.canLogIn ? "" : "This node was started without --admin-token, so log-in is disabled";
  byId("log-in").hidden = mayAct || !state.canLogIn;
  byId("log-out").hidden = !mayAct;
  document.body.dataset.access = state.access;
  set(document.body, "data-acts", mayAct);
  offerAnnouncing(state);
}

byId("log-in").addEventListener("click", () => byId("login").showModal());
byId("login-cancel").addEventListener("click", () => byId("login").close());
byId("login").addEventListener("close", () => {
  // This event comes late: the dialog may be open again, with a new token.
  if (byId("login").open) return;
  byId("login-token").value = "";
  setText(byId("login-problem"), "");
});
byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await send("/api/login", { token: byId("login-token").value });
  if (!answer.ok) return setText(byId("login-problem"), answer.problem);
  byId("login").close();
  await checkAccess();
  refreshClient(state.fleet, true);
});
byId("log-out").addEventListener("click", async () => {
  await send("/api/logout");
  closeClient();
  await checkAccess();
});

watchAnnouncing(state);

byId("find").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = byId("find-text").value.trim();
  setText(byId("find-note"), "");
  if (text) setText(byId("find-note"), (await find(text)) ?? "");
});

byId("find-text").addEventListener("input", () => setText(byId("find-note"), ""));

// Shows the client with this id, the clients of this user, or the end of the connection with this id. Returns the
// problem, if nothing is found.
async function find(text) {
  const id = encodeURIComponent(text);
  if ((await read(`/api/clients/${id}`)).ok) return void open(text);
  const clients = await read("/api/clients", { user: text, limit: 1 });
  if (!clients.ok) return clients.problem;
  if (clients.value.items.length > 0) return void lists.showClients({ user: text });
  const past = await read(`/api/why/${id}`);
  if (past.ok && past.value.closedMs) return void openPast(past.value, state);
  return past.status === 404
    ? `No client has the id or the user “${text}”, and no connection with this id ended in the last ten minutes. A user’s ended connections are found by their ids.`
    : past.problem;
}

await checkAccess();
listen();
new Timeline();
