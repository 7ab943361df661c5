// Sends an operator's message to clients of the whole fleet, if actions are permitted.

import { send } from "./api.js";
import { byId, make, say } from "./dom.js";
import { plural } from "./format.js";
import { hubsOf } from "./nodes.js";

const field = (name) => byId(`announcing-${name}`);

export function offerAnnouncing(state) {
  byId("announce").hidden = state.access !== "act";
}

export function watchAnnouncing(state) {
  byId("announce").addEventListener("click", () => {
    const names = hubsOf(state.fleet ?? { nodes: [] }).map((hub) => hub.name);
    const chosen = field("hub").value;
    field("hub").replaceChildren(...names.map((value) => make("option", { value }, value)));
    if (names.includes(chosen)) field("hub").value = chosen;
    tell("", "");
    byId("announcing").showModal();
  });
  field("to").addEventListener("change", () => {
    field("named").hidden = field("to").value === "";
    field("name").required = field("to").value !== "";
  });
  field("cancel").addEventListener("click", () => byId("announcing").close());
  field("form").addEventListener("submit", (event) => {
    event.preventDefault();
    announce();
  });
}

async function announce() {
  tell("", "");
  const body = { hub: field("hub").value, target: field("target").value, arguments: argumentsOf(field("arguments").value) };
  if (!body.arguments) return tell("", "The arguments are not a JSON list, such as [\"We restart in five minutes.\"]");
  const to = field("to").value;
  if (to) body[to] = field("name").value;
  field("submit").disabled = true;
  const answer = await send("/api/announce", body);
  field("submit").disabled = false;
  if (!answer.ok) return tell("", answer.problem);
  const { nodes, clients, missing } = answer.value;
  const silent = missing.length ? `No answer, so their clients may have missed the message: ${missing.join(", ")}` : "";
  tell(`Given to ${plural(clients, "client")} at ${plural(nodes, "node")}.`, silent);
}

function argumentsOf(text) {
  try {
    const list = JSON.parse(text);
    return Array.isArray(list) ? list : null;
  } catch {
    return null;
  }
}

function tell(answer, problem) {
  say(field("answer"), answer);
  say(field("problem"), problem);
}
