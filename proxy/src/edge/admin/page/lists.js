// The lists below the picture. Clients, groups and users are loaded page by page, and only while visible.

import { changeGroups, endRecord, rebalance, revokeTokens, stopRebalance } from "./acts.js";
import { openAnnouncing } from "./announce.js";
import { read } from "./api.js";
import { byId, make, setText, set } from "./dom.js";
import { age, bytes, count, protocol, transport } from "./format.js";
import { Table, appOfClient, hubsOf, hubsTable, linksOf, linksTable, nodesTable, rowStateOf, rulesOf, rulesTable, webhooksOf, webhooksTable } from "./nodes.js";
import { Trace } from "./trace.js";

const LIMIT = 50;

const TABS = [
  ["nodes", "Nodes"],
  ["links", "Links"],
  ["webhooks", "Webhooks"],
  ["hubs", "Hubs"],
  ["clients", "Clients"],
  ["groups", "Groups"],
  ["users", "Users"],
  ["records", "Records"],
  ["rules", "Rules"],
  ["trace", "Trace"],
];

// Tabs that are shown only if they have rows.
const OPTIONAL = ["webhooks", "rules"];

export class Lists {
  constructor({ openClient, state }) {
    this.state = state;
    const announce = ["Announce…", ({ hub, group, user }) => openAnnouncing(state, { hub, group, user })];
    this.tables = {
      nodes: nodesTable((node) => this.showClients({ node: node.name }), [["Rebalance…", (node) => rebalance(state, node.name)]]),
      links: linksTable(),
      webhooks: webhooksTable(),
      hubs: hubsTable((hub) => this.showClients({ hub: hub.name }), [["Announce…", (hub) => openAnnouncing(state, { hub: hub.name })]]),
      rules: rulesTable(),
    };
    this.pages = {
      clients: new Pages("clients", clientsTable((client) => openClient(client.id), (client) => appOfClient(state.fleet, client)), ["node", "hub", "group", "user"], state),
      groups: new Pages("groups", namesTable("Group", "groups", (row) => this.showClients(row), [announce]), ["hub"], state),
      users: new Pages("users", namesTable("User", "users", (row) => this.showClients(row),
        [announce, ["Groups…", ({ hub, user }) => changeGroups(state, { hub, user })], ["Revoke tokens…", (row) => revokeTokens(state, row.user)]]), ["hub"], state),
      records: new Pages("records", recordsTable([["Finish…", (row) => endRecord(state, row, "finish")], ["Delete…", (row) => endRecord(state, row, "delete")]]), ["hub"], state),
    };
    const button = (id, text, act) => make("button", { type: "button", id, onclick: () => act(state) }, text);
    this.stop = button("rebalance-stop", "Stop the rebalance…", stopRebalance);
    this.tables.nodes.element = make("div", {}, this.tables.nodes.element, make("div", { class: "buttons acts" }, button("rebalance", "Rebalance all nodes…", rebalance), this.stop));
    this.trace = new Trace({ openClient, state });
    this.makeTabs();
    this.choose("nodes");
  }

  makeTabs() {
    const all = TABS.map(([id, name]) =>
      make("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": "panel", hidden: OPTIONAL.includes(id), onclick: () => this.choose(id) }, name));
    byId("tabs").append(...all);
    byId("tabs").addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const tabs = all.filter((tab) => !tab.hidden);
      const at = tabs.indexOf(document.activeElement);
      if (step === undefined || at < 0) return;
      const next = tabs[(at + step + tabs.length) % tabs.length];
      next.focus();
      next.click();
    });
  }

  choose(id) {
    this.chosen = id;
    for (const [other] of TABS) {
      const tab = byId(`tab-${other}`);
      set(tab, "aria-selected", other === id);
      set(tab, "tabindex", other === id ? 0 : -1);
      // Only the row of tabs is scrolled, not the page.
      if (other === id) byId("tabs").scrollLeft = tab.offsetLeft - byId("tabs").offsetLeft - (byId("tabs").clientWidth - tab.offsetWidth) / 2;
    }
    const panel = byId("panel");
    set(panel, "aria-labelledby", `tab-${id}`);
    panel.replaceChildren((this.pages[id] ?? this.tables[id] ?? this.trace).element);
    if (this.state.fleet) this.show(this.state.fleet);
    this.pages[id]?.load();
  }

  show(fleet) {
    for (const pages of Object.values(this.pages)) pages.update(fleet);
    this.trace.update(fleet);
    this.stop.hidden = !fleet.nodes.some((node) => node.rebalance?.state === "running");
    if (this.chosen === "nodes") this.tables.nodes.show(fleet.nodes.map((node) => ({ ...node, rowState: rowStateOf(node) })));
    if (this.chosen === "links") this.tables.links.show(linksOf(fleet));
    if (this.chosen === "hubs") this.tables.hubs.show(hubsOf(fleet));
    const rows = { webhooks: webhooksOf(fleet), rules: rulesOf(fleet) };
    for (const id of OPTIONAL) {
      if (this.chosen === id) this.tables[id].show(rows[id]);
      byId(`tab-${id}`).hidden = rows[id].length === 0 && this.chosen !== id;
    }
    this.pages[this.chosen]?.refresh();
  }

  traceClient(id) {
    this.choose("trace");
    byId("lists").scrollIntoView({ block: "nearest" });
    byId("tab-trace").focus();
    this.trace.follow("connection", id);
  }

  showClients(filter) {
    this.pages.clients.filter(filter);
    this.choose("clients");
    byId("lists").scrollIntoView({ block: "nearest" });
    byId("tab-clients").focus();
  }
}

// A list loaded part by part while visible.
class Pages {
  constructor(kind, table, filters, state) {
    Object.assign(this, { kind, table, state, fields: {}, before: [], after: undefined, next: null, number: 0 });
    const inputs = filters.map((name) => this.field(name));
    this.note = make("p", { class: "quiet", role: "status", id: `${kind}-note` });
    this.back = make("button", { type: "button", onclick: () => this.turn(this.before.pop(), false) }, "Back");
    this.more = make("button", { type: "button", id: `${kind}-more`, onclick: () => this.turn(this.next, true) }, "More");
    const form = make("form", { class: "filters", onsubmit: (event) => event.preventDefault() }, ...inputs);
    this.element = make("div", {}, form, table.element, make("div", { class: "buttons" }, this.note, this.back, this.more));
  }

  field(name) {
    const isChoice = name === "node" || name === "hub";
    const id = `${this.kind}-${name}`;
    const input = isChoice ? make("select", { id }) : make("input", { id, maxlength: 1000, autocomplete: "off", spellcheck: "false" });
    input.addEventListener("change", () => this.restart());
    this.fields[name] = input;
    return make("div", {}, make("label", { for: id }, name[0].toUpperCase() + name.slice(1)), input);
  }

  // Updates the choices.
  update(fleet) {
    const choices = { node: fleet.nodes.map((node) => node.name), hub: hubsOf(fleet).map((hub) => hub.name) };
    for (const [name, known] of Object.entries(choices)) {
      const select = this.fields[name];
      const isNeeded = this.kind !== "clients";
      const wanted = isNeeded ? known : ["", ...known];
      if (!select || wanted.join("\n") === [...select.options].map((option) => option.value).join("\n")) continue;
      const chosen = select.value || this.wanted?.[name];
      select.replaceChildren(...wanted.map((value) => make("option", { value }, value || "all")));
      if (wanted.includes(chosen)) select.value = chosen;
    }
  }

  filter(values) {
    this.wanted = values;
    for (const [name, input] of Object.entries(this.fields)) input.value = values[name] ?? "";
    Object.assign(this, { before: [], after: undefined });
  }

  restart() {
    Object.assign(this, { before: [], after: undefined });
    this.load();
  }

  turn(after, isOnward) {
    if (isOnward) this.before.push(this.after);
    this.after = after;
    this.load();
  }

  refresh() {
    const isDue = Date.now() - (this.loadedAt ?? 0) > 900;
    if (isDue && !this.isLoading) this.load();
  }

  async load() {
    const values = Object.fromEntries(Object.entries(this.fields).map(([name, input]) => [name, input.value.trim()]));
    if (this.kind !== "clients" && !values.hub) return;
    if (values.group && !values.hub) return this.report([], "A group belongs to a hub: choose the hub.");
    const number = ++this.number;
    this.isLoading = true;
    const page = this.kind === "records" ? {} : { limit: LIMIT, after: this.after };
    const answer = await read(`/api/${this.kind}`, { ...values, ...page });
    this.isLoading = false;
    this.loadedAt = Date.now();
    // A later request wins.
    if (number !== this.number) return;
    if (!answer.ok) return this.report([], answer.problem);
    this.next = answer.value.next;
    const items = answer.value.items;
    if (this.kind === "records") {
      const note = items.length > 0 ? `${count(answer.value.total)} recorded, ${count(items.length)} shown` : "Nothing is recorded: see [[history]] and Hub::history.";
      return this.report(items.map((row) => ({ ...row, hub: values.hub })), note);
    }
    const rows = this.kind === "clients" ? items : items.map(([name, clients]) => ({ name, clients, hub: values.hub, [this.kind === "groups" ? "group" : "user"]: name }));
    this.report(rows, `Page ${this.before.length + 1}, ${count(rows.length)} shown`);
  }

  report(rows, note) {
    this.table.show(rows);
    setText(this.note, note);
    this.back.disabled = this.before.length === 0;
    this.more.disabled = !this.next;
  }
}

const clientsTable = (press, appOf) =>
  new Table("Clients", [
    ["Id", (client) => client.id, "mono"],
    ["User", (client) => client.user ?? ""],
    ["Hub", (client) => client.hub],
    ["Node", (client) => client.node],
    ["App server", appOf, "long"],
    ["Transport", (client) => transport(client.transport)],
    ["Protocol", (client) => protocol(client.protocol)],
    ["State", (client) => client.state],
    ["Address", (client) => client.address ?? "", "long"],
    ["Here for", (client) => age(client.ageS), "number"],
  ], { id: "clients", press, keyOf: (client) => client.id });

const recordsTable = (acts) =>
  new Table("Records", [
    ["Name", (row) => row.name],
    ["Of", (row) => (row.isUser ? "user" : "group")],
    ["State", (row) => (row.isFinished ? "finished" : "open")],
    ["Node", (row) => row.node ?? ""],
    ["Messages", (row) => count(row.messages), "number"],
    ["Size", (row) => bytes(row.bytes), "number"],
    ["Followers", (row) => count(row.followers), "number"],
    ["Last message", (row) => (row.usedMs ? `${age((Date.now() - row.usedMs) / 1000)} ago` : ""), "number"],
  ], { id: "records", acts, keyOf: (row) => `${row.hub} ${row.isUser} ${row.name}` });

const namesTable = (heading, id, press, acts) =>
  new Table(heading, [
    [heading, (row) => row.name],
    ["Clients", (row) => count(row.clients), "number"],
  ], { id, press, acts, keyOf: (row) => `${row.hub} ${row.name}` });
