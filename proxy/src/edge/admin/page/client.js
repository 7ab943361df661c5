// Panel of one client: its details, and its messages while the panel is open; of an ended client, how it ended.
//
// The node collects messages only while the panel is open. Payloads stay hidden until a user with permission requests
// them.

import { changeGroups, mayAct, revokeTokens } from "./acts.js";
import { openAnnouncing } from "./announce.js";
import { HOME, pathOf, read, send } from "./api.js";
import { byId, draw, keyed, make, setText, set } from "./dom.js";
import { age, bytes, count, dateTime, protocol, rate, time, transport } from "./format.js";
import { Life } from "./life.js";
import { appOfClient, isWebhook } from "./nodes.js";

const MESSAGES_MAX = 200;
const REFRESH_MS = 900;

const panel = byId("client");
let shown = null;

export async function openClient(id, state, trace) {
  const of = { id, state, trace, messages: [], withPayloads: false, amounts: [], isOver: false, life: new Life() };
  open(of, liveParts(of));
  await load(of);
  watch(of);
}

// Shows the node's record of a connection that has ended or was refused.
export function openPast(past, state) {
  const of = { id: past.connectionId, state, isOver: true, life: new Life() };
  open(of, past.user ? [make("div", { class: "buttons acts" }, revokeButton(of, past.user))] : []);
  panel.dataset.state = "over";
  pastFacts(of, past);
}

const revokeButton = ({ state }, user) =>
  make("button", { type: "button", id: "client-revoke", onclick: () => revokeTokens(state, user) }, "Revoke tokens…");

function open(of, parts) {
  closeClient();
  shown = of;
  of.opener = document.activeElement;
  build(of, parts);
  panel.hidden = false;
  document.body.classList.add("with-client");
  byId("client-close-panel").focus();
}

export function closeClient() {
  if (!shown) return;
  shown.stream?.close();
  const { opener } = shown;
  shown = null;
  panel.hidden = true;
  document.body.classList.remove("with-client");
  panel.replaceChildren();
  if (opener?.isConnected) opener.focus();
}

// Called on news of the fleet and after a log-in.
export function refreshClient(_fleet, isNow = false) {
  if (!shown || shown.isOver) return;
  if (isNow || Date.now() - (shown.loadedAt ?? 0) > REFRESH_MS) load(shown);
}

async function load(of) {
  of.loadedAt = Date.now();
  const answer = await read(pathOf(of.id));
  if (of !== shown) return;
  if (answer.status === 404) return over(of);
  if (!answer.ok) return setText(byId("client-note"), answer.problem);
  facts(of, answer.value);
}

function over(of) {
  if (of.isOver) return;
  of.isOver = true;
  of.stream?.close();
  setText(byId("client-note"), "This connection has ended.");
  explain(of);
  panel.dataset.state = "over";
  byId("client-end").disabled = true;
  byId("client-payloads").disabled = true;
}

// The node keeps the reason of the end for a while.
async function explain(of) {
  const answer = await read(`/api/why/${encodeURIComponent(of.id)}`);
  if (of !== shown) return;
  of.life.end(answer.ok ? answer.value : null, Date.now());
  if (!answer.ok || !answer.value.text) return;
  const { text, detail } = answer.value;
  setText(byId("client-note"), `This connection has ended: ${text}${detail ? ` (${detail})` : ""}.`);
}

const id = (text) => `client-${text}`;

function build(of, parts) {
  panel.dataset.state = "open";
  panel.replaceChildren(
    make("div", { class: "title" },
      make("h2", { id: id("title") }, "Client"),
      make("button", { type: "button", id: id("close-panel"), class: "plain", "aria-label": "Close this panel", onclick: closeClient }, "✕")),
    make("p", { class: "mono", id: id("id") }, of.id),
    make("p", { id: id("note"), role: "status" }),
    ...Life.elements(),
    make("dl", { id: id("facts") }),
    ...parts);
  panel.onkeydown = (event) => {
    if (event.key === "Escape") closeClient();
  };
}

function liveParts(of) {
  return [
    make("div", { class: "buttons" },
      make("button", { type: "button", id: id("trace"), onclick: () => of.trace(of.id) }, "Trace"),
      make("button", { type: "button", id: id("payloads"), "aria-pressed": "false", onclick: () => togglePayloads(of) }, "Show payloads"),
      make("span", { class: "acts", id: id("acts") }),
      make("button", { type: "button", id: id("end"), class: "danger acts", onclick: () => askToClose(of) }, "Close client…")),
    make("div", { class: "title" }, make("h3", {}, "Messages"), make("p", { id: id("rates"), class: "small" })),
    draw("svg", { id: id("spark"), viewBox: "0 0 300 40", "aria-hidden": "true", preserveAspectRatio: "none" }, draw("path", { class: "up" }), draw("path", { class: "down" })),
    make("p", { class: "quiet" }, "Messages since this panel was opened, newest first."),
    make("ol", { id: id("messages"), "aria-label": "Messages, newest first", tabindex: 0 }),
    make("p", { id: id("empty"), class: "empty" }, "No messages yet."),
  ];
}

function facts(of, client) {
  const holds = { opening: "opening: its app server has not answered yet", held: "held: waiting for an app server", paused: "paused: not read at the moment", away: "away: its socket is lost, and it may reconnect" };
  const groups = client.groups.join(", ") + (client.groupCount > client.groups.length ? `, and ${count(client.groupCount - client.groups.length)} more` : "");
  const app = appOfClient(of.state.fleet, client);
  const all = [
    ["user", "User", client.user ?? "none"],
    ["hub", "Hub", client.hub],
    ["groups", "Groups", groups || "none"],
    ["node", "Node", client.node],
    ["app", "App server", app],
    ["instance", "Server instance", isWebhook(client) ? "–" : client.app || "–"],
    ["address", "Address", client.address ?? "not known"],
    ["agent", "User agent", client.userAgent ?? "unknown"],
    ["transport", "Transport", transport(client.transport) + (client.compressed ? ", compressed" : "")],
    ["protocol", "Protocol", protocol(client.protocol)],
    ["state", "State", holds[client.state] ?? client.state],
    ["age", "Here for", age(client.ageS)],
    ["heard", "Last received", `${age(client.heardS)} ago`],
    ["waiting", "Queued for it", bytes(client.outboxBytes)],
    ["calls", "Pending calls", count(client.pendingCalls)],
    ["token", "Closes with its token", client.tokenEndsS ? `in ${age(Math.max(0, client.tokenEndsS - Date.now() / 1000))}` : "no"],
  ];
  of.user = client.user;
  showFacts(all);
  offerActs(of, client);
  setText(byId("client-title"), client.user ?? "Client");
  of.life.update({ ...client, appName: app }, Date.now());
}

function offerActs(of, { id: client, hub, user }) {
  const place = byId("client-acts");
  if (place.childElementCount > 0) return;
  const announce = () => openAnnouncing(of.state, { hub, client, user });
  const groups = () => changeGroups(of.state, { hub, client });
  place.append(make("button", { type: "button", id: id("announce"), onclick: announce }, "Announce…"),
    make("button", { type: "button", id: id("groups"), onclick: groups }, "Groups…"), ...(user ? [revokeButton(of, user)] : []));
}

function showFacts(all) {
  keyed(byId("client-facts"), all, ([key]) => key,
    ([key, name]) => make("div", {}, make("dt", {}, name), make("dd", { id: `client-fact-${key}` })),
    (element, [, , value]) => setText(element.lastChild, value));
}

function pastFacts(of, past) {
  const [begin, end] = [past.openedMs, past.closedMs];
  const isRefused = past.state === "refused";
  setText(byId("client-title"), past.user ?? "Client");
  setText(byId("client-note"), `This connection ${isRefused ? "was refused" : "has ended"}: ${past.text}${past.detail ? ` (${past.detail})` : ""}.`);
  showFacts([
    ["ended", isRefused ? "Refused" : "Ended", `${dateTime(end)}, ${age((Date.now() - end) / 1000)} ago`],
    ["cause", "Cause", past.cause],
    ["opened", "Connected", begin ? dateTime(begin) : "no"],
    ["age", "Was here for", begin ? age((end - begin) / 1000) : "–"],
    ["user", "User", past.user ?? "none"],
    ["hub", "Hub", past.hub ?? "not known"],
    ["node", "Node", past.node],
    ["app", "App server", appOfClient(of.state.fleet, { app: past.appServer, hub: past.hub })],
    ["instance", "Server instance", !past.appServer || isWebhook({ app: past.appServer }) ? "–" : past.appServer],
    ["address", "Address", past.remoteAddress ?? "not known"],
    ["agent", "User agent", past.userAgent ?? "unknown"],
    ["transport", "Transport", past.transport ? transport(past.transport) : "–"],
    ["protocol", "Protocol", past.protocol ? protocol(past.protocol) : "–"],
  ]);
  of.life.end(past, Date.now());
}

function watch(of) {
  of.stream?.close();
  if (of !== shown || of.isOver) return;
  of.amounts = [];
  of.stream = new EventSource(`${HOME}${pathOf(of.id)}/watch?payloads=${of.withPayloads ? "shown" : "hidden"}`);
  of.stream.addEventListener("watch", (event) => {
    if (of === shown) take(of, JSON.parse(event.data));
  });
  of.stream.addEventListener("error", () => {
    // The browser reconnects automatically if that may help; otherwise, the details show why.
    if (of === shown && of.stream.readyState === EventSource.CLOSED) load(of);
  });
}

function take(of, report) {
  const stamp = ++of.reports || (of.reports = 1);
  of.messages.unshift(...report.messages.map((message) => ({ ...message, key: `${stamp} ${message.number}` })).reverse());
  of.messages.length = Math.min(of.messages.length, MESSAGES_MAX);
  of.amounts.push({ at: performance.now(), up: report.up, down: report.down });
  if (of.amounts.length > 100) of.amounts.shift();
  rates(of);
  messages(of);
  if (report.isOver) over(of);
}

// Covers the last seconds, to smooth the values.
function rates({ amounts }) {
  const now = amounts.at(-1);
  const then = amounts.find((amount) => now.at - amount.at < 3000);
  const seconds = (now.at - then.at) / 1000;
  const per = (way, what) => (seconds > 0 ? (now[way][what] - then[way][what]) / seconds : undefined);
  const text = (way, arrow) => {
    const speed = per(way, "bytes");
    return `${arrow} ${rate(per(way, "messages"))}, ${speed === undefined ? "–" : `${bytes(speed)}/s`}`;
  };
  setText(byId("client-rates"), `${text("up", "↑")}   ${text("down", "↓")}`);
  spark(amounts);
}

function spark(amounts) {
  const steps = (way) => amounts.slice(1).map((amount, index) => amount[way].messages - amounts[index][way].messages);
  const [ups, downs] = [steps("up"), steps("down")];
  const most = Math.max(1, ...ups, ...downs);
  const path = (values) => values.map((value, index) => `${index ? "L" : "M"}${(300 - (values.length - 1 - index) * 3).toFixed(0)} ${(38 - (36 * value) / most).toFixed(1)}`).join("");
  const [up, down] = byId("client-spark").children;
  set(up, "d", path(ups) || "M0 38");
  set(down, "d", path(downs) || "M0 38");
}

function messages(of) {
  const create = (message) => {
    const name = message.target ?? message.kind;
    const row = make("li", { "data-way": message.way, "data-kind": message.kind },
      make("span", { class: "arrow", "aria-hidden": "true" }, message.way === "up" ? "↑" : "↓"),
      make("span", { class: "quiet" }, message.way === "up" ? "from the client" : "to the client"),
      make("time", {}, time(message.atMs)),
      make("strong", {}, name),
      make("span", { class: "small" }, message.target ? message.kind : "", message.invocationId ? ` #${message.invocationId}` : ""),
      make("span", { class: "small end" }, message.bytes ? bytes(message.bytes) : ""));
    if (message.payload !== undefined) row.append(make("code", { class: "payload" }, message.payload));
    return row;
  };
  keyed(byId("client-messages"), of.messages, (message) => message.key, create, () => {});
  byId("client-empty").hidden = of.messages.length > 0;
}

const isPermitted = (of) => mayAct(of.state, (text) => setText(byId("client-note"), text));

function togglePayloads(of) {
  if (!isPermitted(of)) return;
  of.withPayloads = !of.withPayloads;
  const button = byId("client-payloads");
  set(button, "aria-pressed", of.withPayloads);
  setText(button, of.withPayloads ? "Hide payloads" : "Show payloads");
  if (!of.withPayloads) {
    of.messages = of.messages.map(({ payload, ...message }) => ({ ...message, key: `hidden ${message.key}` }));
    messages(of);
  }
  watch(of);
}

function askToClose(of) {
  if (!isPermitted(of)) return;
  setText(byId("closing-title"), of.user ? `Close this client of ${of.user}?` : "Close this client?");
  byId("closing-reason").value = "";
  setText(byId("closing-problem"), "");
  byId("closing").showModal();
}

byId("closing-cancel").addEventListener("click", () => byId("closing").close());
byId("closing-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const of = shown;
  if (!of) return byId("closing").close();
  const reason = byId("closing-reason").value.trim();
  const answer = await send(`${pathOf(of.id)}/close`, reason ? { reason } : {});
  if (!answer.ok) return setText(byId("closing-problem"), answer.problem);
  byId("closing").close();
  if (of === shown) over(of);
});
