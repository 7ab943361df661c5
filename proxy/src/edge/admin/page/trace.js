// A live trace: messages passing all nodes, each with its hops so far.
//
// A node reports a message once it has passed the proxy on its way in; later details refer to its number. Each value is
// a duration on one clock, so a bar can show them side by side.

import { HOME, read } from "./api.js";
import { byId, draw, keyed, make, setText, set } from "./dom.js";
import { bytes, count, milliseconds, time } from "./format.js";
import { hubsOf } from "./nodes.js";

const ROWS_MAX = 200;
const SECONDS_MAX = 600;
const SUBJECTS = [["connection", "Connection"], ["user", "User"], ["group", "Group"], ["method", "Method"]];

// In path order; `way` is the remaining time between proxy and app server, both ways.
const HOPS = [
  ["link", "link: at the proxy, between socket and link"],
  ["waited", "waited: in the app server, until the connection's worker took the message"],
  ["queued", "queued: until the method began"],
  ["ran", "ran: the method"],
  ["answered", "answered: until the answer was in the link"],
  ["way", "way: between proxy and app server, in both directions"],
  ["written", "written: until it was written to the client's socket"],
];

export class Trace {
  constructor({ openClient, state }) {
    Object.assign(this, { openClient, state, messages: [], byKey: new Map(), missing: new Map(), following: new Set(), left: 0 });
    this.element = this.build();
  }

  build() {
    const labelled = (id, name, input) => make("div", {}, make("label", { for: `trace-${id}` }, name), input);
    this.subject = make("select", { id: "trace-subject" }, ...SUBJECTS.map(([value, name]) => make("option", { value }, name)));
    this.value = make("input", { id: "trace-value", maxlength: 1000, required: true, autocomplete: "off", spellcheck: "false" });
    this.hub = make("select", { id: "trace-hub" }, make("option", { value: "" }, "all"));
    this.seconds = make("input", { id: "trace-seconds", type: "number", min: 1, max: SECONDS_MAX, value: 30, required: true });
    this.payloads = make("input", { id: "trace-payloads", type: "checkbox" });
    this.button = make("button", { class: "main", id: "trace-start" }, "Trace");
    this.note = make("p", { id: "trace-note", role: "status" }, "Follows messages at all nodes, with the time at each hop.");
    this.problem = make("p", { id: "trace-problem", role: "alert" });
    this.list = make("ol", { id: "trace-messages", "aria-label": "Traced messages, newest first", tabindex: 0 });
    const form = make("form", { class: "filters", id: "trace-form", onsubmit: (event) => this.submit(event) },
      labelled("subject", "Follow", this.subject),
      labelled("value", "Id or name", this.value),
      labelled("hub", "Hub", this.hub),
      labelled("seconds", "Seconds", this.seconds),
      make("div", { class: "check" }, this.payloads, make("label", { for: "trace-payloads" }, "with payloads")),
      this.button);
    const legend = make("ul", { id: "trace-legend", "aria-label": "Hops and their colours" },
      ...HOPS.map(([name, text]) => make("li", { class: `hop-${name}`, title: text }, name)));
    return make("div", { id: "trace" }, form, this.note, this.problem, legend, this.list);
  }

  // Updates the choices.
  update(fleet) {
    const wanted = ["", ...hubsOf(fleet).map((hub) => hub.name)];
    if (wanted.join("\n") === [...this.hub.options].map((option) => option.value).join("\n")) return;
    const chosen = this.hub.value;
    this.hub.replaceChildren(...wanted.map((value) => make("option", { value }, value || "all")));
    if (wanted.includes(chosen)) this.hub.value = chosen;
  }

  follow(subject, value) {
    this.subject.value = subject;
    this.value.value = value;
    this.hub.value = "";
    this.start();
  }

  submit(event) {
    event.preventDefault();
    if (this.stream) this.stop("Stopped.");
    else this.start();
  }

  start() {
    this.stream?.close();
    if (this.payloads.checked && this.state.access !== "act") {
      if (this.state.canLogIn) byId("login").showModal();
      return this.fail("Payloads require a log-in with the admin token.");
    }
    Object.assign(this, { messages: [], left: 0 });
    for (const known of [this.byKey, this.missing, this.following]) known.clear();
    this.list.replaceChildren();
    this.list.known?.clear();
    this.fail("");
    const query = { [this.subject.value]: this.value.value.trim(), seconds: this.seconds.value, payloads: this.payloads.checked ? "shown" : "hidden" };
    if (this.hub.value) query.hub = this.hub.value;
    const stream = new EventSource(`${HOME}/api/trace?${new URLSearchParams(query)}`);
    this.stream = stream;
    setText(this.button, "Stop");
    setText(this.note, "Asking the nodes…");
    stream.addEventListener("trace", (event) => stream === this.stream && this.take(JSON.parse(event.data)));
    stream.addEventListener("error", () => stream === this.stream && this.broken(query));
  }

  stop(text) {
    this.stream?.close();
    this.stream = null;
    clearInterval(this.clock);
    setText(this.button, "Trace");
    setText(this.note, `${text} ${this.sum()}`);
  }

  fail(text) {
    setText(this.problem, text);
  }

  // A browser would reconnect automatically, and does not show the reason of a refusal.
  async broken(query) {
    const hasBegun = this.following.size > 0;
    this.stop(hasBegun ? "The trace broke off." : "");
    if (hasBegun) return;
    const answer = await read("/api/trace", { ...query, seconds: 1 });
    if (!this.stream) this.fail(answer.ok ? "The node does not answer." : answer.problem);
  }

  take(line) {
    const act = {
      header: () => this.begin(line),
      node: () => this.takeNode(line),
      message: () => this.takeMessage(line),
      hop: () => this.takeHop(line),
      lost: () => (this.left += line.messages),
      end: () => this.stop("The time limit is reached."),
    };
    act[line.event]?.();
    if (!this.isDrawing) requestAnimationFrame(() => this.draw());
    this.isDrawing = true;
  }

  begin({ seconds }) {
    const ends = Date.now() + seconds * 1000;
    clearInterval(this.clock);
    const report = () => setText(this.note, `${Math.max(0, Math.ceil((ends - Date.now()) / 1000))} s left. ${this.sum()}`);
    this.clock = setInterval(report, 500);
    report();
  }

  takeNode({ node, state, problem }) {
    if (state === "following") {
      this.following.add(node);
      this.missing.delete(node);
    } else {
      this.following.delete(node);
      this.missing.set(node, problem);
    }
    this.fail([...this.missing].map(([name, why]) => `${name} is not traced: ${why}`).join(" · "));
  }

  takeMessage(message) {
    const entry = { ...message, key: `${message.node} ${message.number}` };
    this.byKey.set(entry.key, entry);
    this.messages.unshift(entry);
    for (const old of this.messages.splice(ROWS_MAX)) this.byKey.delete(old.key);
  }

  takeHop({ node, number, hub, answeredUs, writtenUs, lost }) {
    const message = this.byKey.get(`${node} ${number}`);
    if (!message) return;
    if (hub) message.hub_times = hub;
    if (answeredUs !== undefined) message.answeredUs = answeredUs;
    if (writtenUs !== undefined) message.writtenUs = writtenUs;
    if (lost) message.isLost = true;
  }

  sum() {
    const nodes = [...this.following].sort().join(", ");
    const left = this.left ? `, ${count(this.left)} left out: over the limit of a trace` : "";
    return nodes ? `At ${nodes}: ${count(this.messages.length)} messages shown${left}.` : "";
  }

  draw() {
    this.isDrawing = false;
    const longest = Math.max(1, ...this.messages.map(totalOf));
    keyed(this.list, this.messages, (message) => message.key, (message) => this.row(message), (row, message) => update(row, message, longest));
  }

  row(message) {
    const isUp = message.way === "up";
    const row = make("li", { "data-way": message.way, "data-kind": message.kind, "data-node": message.node, "data-target": message.target },
      make("span", { class: "arrow", "aria-hidden": "true" }, isUp ? "↑" : "↓"),
      make("time", {}, time(message.atUs / 1000)),
      make("button", { type: "button", class: "plain", title: message.connection, onclick: () => this.openClient(message.connection) }, message.user ?? message.connection.slice(0, 8)),
      make("span", {}, make("span", { class: "quiet" }, isUp ? "from the client" : "to the client"), make("strong", {}, message.target ?? message.kind),
        make("span", { class: "small" }, `${message.target ? ` ${message.kind}` : ""}${message.invocationId ? ` #${message.invocationId}` : ""}, ${bytes(message.bytes)}, ${message.node}`)),
      draw("svg", { class: "hops", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }),
      make("span", { class: "number total" }),
      make("span", { class: "small outcome" }));
    if (message.payload !== undefined) row.append(make("code", { class: "payload" }, message.payload));
    return row;
  }
}

function hopsOf(message) {
  const hub = message.hub_times ?? {};
  const inside = (message.linkUs ?? 0) + (hub.waitedUs ?? 0) + (hub.queuedUs ?? 0) + (hub.ranUs ?? 0) + (hub.answeredUs ?? 0);
  const way = message.answeredUs !== undefined && hub.ranUs !== undefined ? Math.max(0, message.answeredUs - inside) : undefined;
  const known = { link: message.linkUs, waited: hub.waitedUs, queued: hub.queuedUs, ran: hub.ranUs, answered: hub.answeredUs, way, written: message.writtenUs };
  return HOPS.map(([name]) => [name, known[name]]).filter(([, us]) => us !== undefined);
}

// Without the app server's times, the total is the proxy's measurement.
function totalOf(message) {
  return Math.max(message.answeredUs ?? 0, hopsOf(message).reduce((all, [, us]) => all + us, 0));
}

function update(row, message, longest) {
  const [hops, total] = [hopsOf(message), totalOf(message)];
  const text = hops.map(([name, us]) => `${name} ${milliseconds(us)}`).join(" · ");
  const bar = row.querySelector("svg");
  const signature = `${text} ${total} ${longest}`;
  if (row.signature === signature) return;
  row.signature = signature;
  // Keeps a short one visible.
  const width = total > 0 ? Math.max(4, (100 * total) / longest) : 0;
  let at = 0;
  const parts = hops.map(([name, us]) => {
    const part = draw("rect", { class: `hop-${name}`, x: at.toFixed(2), y: 0, width: ((width * us) / (total || 1)).toFixed(2), height: 10 });
    at += (width * us) / (total || 1);
    return part;
  });
  const rest = width - at > 0.5 ? [draw("rect", { class: "hop-rest", x: at.toFixed(2), y: 0, width: (width - at).toFixed(2), height: 10 })] : [];
  bar.replaceChildren(...parts, ...rest);
  set(row, "title", text);
  setText(row.querySelector(".total"), total > 0 ? milliseconds(total) : "");
  setText(row.querySelector(".outcome"), [text, outcomeOf(message)].filter(Boolean).join(" · "));
}

function outcomeOf(message) {
  if (message.refused) return "refused by rules";
  if (message.isLost) return "not written: the client has disconnected";
  if (message.hub_times?.hasFailed) return "failed";
  if (message.hub_times?.queuedUs !== undefined && message.hub_times.ranUs === undefined) return "still running";
  return "";
}
