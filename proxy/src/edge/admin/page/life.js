// The life of one client as a line: connects, changes of app server or node, disconnects and its end. The node reports
// the current state; changes are derived from consecutive reports.

import { byId, draw, keyed, make, setText, set } from "./dom.js";
import { time } from "./format.js";

// The first event is kept; of the others, the oldest are dropped.
const EVENTS_MAX = 50;
const [FROM, TO, MIDDLE] = [6, 294, 7];

export class Life {
  constructor() {
    this.events = [];
    this.before = null;
    this.awaySince = null;
    this.gaps = [];
  }

  // Elements of the line in the panel.
  static elements() {
    return [
      draw("svg", { id: "client-life", viewBox: "0 0 300 14", preserveAspectRatio: "none", "aria-hidden": "true" },
        draw("path", { class: "whole" }), draw("path", { class: "gap" }), draw("g")),
      make("ol", { id: "client-events", "aria-label": "Life of the connection", tabindex: 0 }),
    ];
  }

  // Applies a report of the node.
  update(client, nowMs) {
    const { before } = this;
    if (!before) this.add(nowMs - client.ageS * 1000, "connected", "good");
    if (before && before.node !== client.node) this.add(nowMs, `moved from ${before.node} to ${client.node}`, "warm");
    if (before && before.app !== client.app) {
      const from = before.appName || "no app server";
      this.add(nowMs, client.app && client.appName ? `reassigned from ${from} to ${client.appName}` : `waiting for an app server: ${from} is gone`, "warm");
    }
    if ((before?.state === "away") !== (client.state === "away")) {
      if (client.state === "away") this.leave(nowMs);
      else if (before) this.comeBack(nowMs);
    }
    this.before = client;
    this.show(nowMs);
  }

  // Applies the node's record of the end.
  end(past, nowMs) {
    const endedMs = past?.closedMs ?? nowMs;
    if (past?.openedMs && this.events.length === 0) this.add(past.openedMs, "connected", "good");
    const word = past?.state === "refused" ? "refused" : "ended";
    this.add(endedMs, past?.text ? `${word}: ${past.text}` : word, "bad");
    this.isOver = true;
    this.show(endedMs);
  }

  leave(nowMs) {
    this.awaySince = nowMs;
    this.add(nowMs, "its socket was lost", "warm");
  }

  comeBack(nowMs) {
    this.gaps.push([this.awaySince ?? nowMs, nowMs]);
    this.gaps = this.gaps.slice(-EVENTS_MAX);
    this.awaySince = null;
    this.add(nowMs, "reconnected with another socket", "good");
  }

  add(atMs, text, tone) {
    this.number = (this.number ?? 0) + 1;
    this.events.push({ atMs, text, tone, key: this.number });
    if (this.events.length > EVENTS_MAX) this.events.splice(1, 1);
  }

  show(nowMs) {
    const svg = byId("client-life");
    if (!svg || this.events.length === 0) return;
    const begin = this.events[0].atMs;
    const whole = Math.max(1, nowMs - begin);
    const x = (ms) => (FROM + ((TO - FROM) * Math.min(whole, Math.max(0, ms - begin))) / whole).toFixed(1);
    const gaps = this.awaySince === null ? this.gaps : [...this.gaps, [this.awaySince, nowMs]];
    const [line, gap, dots] = svg.children;
    set(line, "d", `M${FROM} ${MIDDLE}H${TO}`);
    set(gap, "d", gaps.map(([from, to]) => `M${x(from)} ${MIDDLE}H${x(to)}`).join("") || null);
    keyed(dots, this.events, (event) => event.key,
      (event) => draw("path", { class: "moment", "data-tone": event.tone }),
      (element, event) => set(element, "d", `M${x(event.atMs)} ${MIDDLE}h0`));
    keyed(byId("client-events"), this.events, (event) => event.key,
      (event) => make("li", { "data-tone": event.tone }, make("time", {}), make("span", {}, event.text)),
      (element, event) => setText(element.firstChild, time(event.atMs).slice(0, 8)));
  }
}
