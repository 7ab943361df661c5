// Sends an operator's message to clients of the whole fleet, if actions are permitted.

import { mayAct } from "./acts.js";
import { send } from "./api.js";
import { byId, make, setText } from "./dom.js";
import { plural } from "./format.js";
import { hubsOf } from "./nodes.js";

const field = (name) => byId(`announcing-${name}`);

export function offerAnnouncing(state) {
  byId("announce").hidden = state.access !== "act";
}

// Names of possible receivers, by their kind.
let known = {};

// Opens the dialog, for a hub, and for a group, a user or a client of it.
export function openAnnouncing(state, { hub, ...receivers } = {}) {
  if (!mayAct(state)) return;
  const names = hubsOf(state.fleet ?? { nodes: [] }).map((one) => one.name);
  const chosen = hub ?? field("hub").value;
  field("hub").replaceChildren(...names.map((value) => make("option", { value }, value)));
  if (names.includes(chosen)) field("hub").value = chosen;
  known = receivers;
  if (hub) {
    field("to").value = ["client", "group", "user"].find((kind) => known[kind]) ?? "";
    field("name").value = known[field("to").value] ?? "";
  }
  report("", "");
  describe(state);
  byId("announcing").showModal();
}

// Names the receivers before the message is sent.
function describe(state) {
  const [hub, to, name] = [field("hub").value, field("to").value, field("name").value];
  field("named").hidden = to === "";
  field("name").required = to !== "";
  const { clients } = hubsOf(state.fleet ?? { nodes: [] }).find((one) => one.name === hub) ?? {};
  const all = `all clients of the hub ${hub}, now ${plural(clients ?? 0, "client")}`;
  const receivers = {
    group: `the members of the group ${name || "…"} of the hub ${hub}`,
    user: `the connections of the user ${name || "…"} at the hub ${hub}`,
    client: `the client ${name || "…"} of the hub ${hub}`,
  };
  setText(field("effect"), `Calls ${field("target").value || "…"} at ${receivers[to] ?? all}.`);
}

export function watchAnnouncing(state) {
  byId("announce").addEventListener("click", () => openAnnouncing(state));
  field("to").addEventListener("change", () => (field("name").value = known[field("to").value] ?? ""));
  field("form").addEventListener("input", () => describe(state));
  field("form").addEventListener("change", () => describe(state));
  field("cancel").addEventListener("click", () => byId("announcing").close());
  field("form").addEventListener("submit", (event) => {
    event.preventDefault();
    announce();
  });
}

async function announce() {
  report("", "");
  const body = { hub: field("hub").value, target: field("target").value };
  const list = field("arguments").value;
  if (!isList(list)) return report("", "The arguments are not a JSON list, such as [\"We restart in five minutes.\"]");
  const to = field("to").value;
  if (to) body[to] = field("name").value;
  field("submit").disabled = true;
  // As typed: JavaScript would round long numbers.
  const answer = await send("/api/announce", `${JSON.stringify(body).slice(0, -1)},"arguments":${list}}`);
  field("submit").disabled = false;
  if (!answer.ok) return report("", answer.problem);
  const { nodes, clients, missing } = answer.value;
  const silent = missing.length ? `No answer, so their clients may have missed the message: ${missing.join(", ")}` : "";
  report(`Given to ${plural(clients, "client")} at ${plural(nodes, "node")}.`, silent);
}

function isList(text) {
  try {
    return Array.isArray(JSON.parse(text));
  } catch {
    return false;
  }
}

function report(answer, problem) {
  setText(field("answer"), answer);
  setText(field("problem"), problem);
}
