// Acts of an operator at a user, a node or the fleet. A dialog names the effect before the act, and shows the answer or
// the problem after it.

import { send } from "./api.js";
import { byId, make, setText } from "./dom.js";
import { count, plural } from "./format.js";

const KEPT_DAYS = 30;
const KEPT_DAYS_MAX = 366;
const PER_SECOND = 100;
const PER_SECOND_MAX = 10_000;
const DAY_S = 24 * 3600;

const part = (name) => byId(`acting-${name}`);

let shown = null;

// Returns whether acts are permitted; otherwise asks for a log-in, or reports that it is not possible.
export function mayAct(state, report = () => {}) {
  if (state.access === "act") return true;
  if (state.canLogIn) byId("login").showModal();
  else report("This node was started without --admin-token, so changes are disabled.");
  return false;
}

// Opens the dialog for an act: `title`, `fields` by name, and functions of their values: `effect`, the text of the
// `button`, and `run`, which returns an answer or a problem.
function openDialog(state, act) {
  if (!mayAct(state)) return;
  shown = act;
  setText(part("title"), act.title);
  part("fields").replaceChildren(...act.fields.map(labelled));
  part("submit").className = act.isDanger ? "danger" : "main";
  part("submit").hidden = false;
  setText(part("cancel"), "Cancel");
  report("", "");
  refresh();
  byId("acting").showModal();
}

function labelled({ name, label, choices, value, isShown, ...others }) {
  const id = `acting-${name}`;
  const input = choices
    ? make("select", { id, name }, ...choices.map(([key, text]) => make("option", { value: key }, text)))
    : make("input", { id, name, required: others.type === "number" || others.required, ...others });
  if (value !== undefined) input.value = value;
  const isCheck = others.type === "checkbox";
  const heading = make("label", { for: id }, label);
  return make("div", { class: isCheck ? "check" : null }, ...(isCheck ? [input, heading] : [heading, input]));
}

function values() {
  const inputs = [...part("fields").querySelectorAll("input, select")];
  const valueOf = (input) => ({ checkbox: input.checked, number: Number(input.value) })[input.type] ?? input.value.trim();
  return Object.fromEntries(inputs.map((input) => [input.name, valueOf(input)]));
}

function refresh() {
  const now = values();
  setText(part("effect"), shown.effect(now));
  setText(part("submit"), shown.button(now));
  for (const { name, isShown } of shown.fields) {
    const isUsed = !isShown || isShown(now);
    part(name).parentElement.hidden = !isUsed;
    part(name).disabled = !isUsed;
  }
}

function report(answer, problem) {
  setText(part("answer"), answer);
  setText(part("problem"), problem);
}

part("fields").addEventListener("input", () => {
  shown.change?.();
  report("", "");
  refresh();
});
part("cancel").addEventListener("click", () => byId("acting").close());
part("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const act = shown;
  report("", "");
  part("submit").disabled = true;
  const { answer, problem, isDone } = await act.run(values());
  part("submit").disabled = false;
  if (act !== shown) return;
  report(answer ?? "", problem ?? "");
  refresh();
  if (!isDone) return;
  part("submit").hidden = true;
  setText(part("cancel"), "Close");
});

const silent = (missing) => (missing.length ? ` No answer from ${missing.join(", ")}.` : "");

// ----------------------------------------------------------------------------------------- records

export function endRecord(state, { hub, name, isUser }, act) {
  const of = isUser ? `the user ${name}` : `the group ${name}`;
  const isDeletion = act === "delete";
  openDialog(state, {
    title: `${isDeletion ? "Delete" : "Finish"} the record of ${of}?`,
    isDanger: isDeletion,
    fields: [],
    effect: () =>
      isDeletion
        ? "The messages are deleted, also from the store. Followers receive a reset, and go on with later messages. This can’t be undone."
        : "Followers receive the rest, and then the end. Messages to it are refused until the record is deleted or too old.",
    button: () => (isDeletion ? "Delete" : "Finish"),
    async run() {
      const answer = await send(`/api/records/${act}`, { hub, [isUser ? "user" : "group"]: name });
      if (!answer.ok) return answer;
      return { answer: `Record ${isDeletion ? "deleted" : "finished"}.`, problem: silent(answer.value.missing), isDone: true };
    },
  });
}

// ------------------------------------------------------------------------------------------- users

export function revokeTokens(state, user) {
  openDialog(state, {
    title: `Revoke the tokens of ${user}?`,
    isDanger: true,
    fields: [
      { name: "close", label: "Close all connections of this user too", type: "checkbox" },
      { name: "days", label: "Days to keep the revocation: at least the lifetime of a token", type: "number", value: KEPT_DAYS, min: 1, max: KEPT_DAYS_MAX },
    ],
    effect: ({ close }) =>
      `All nodes refuse the access tokens of the user ${user} that were issued until now. ` +
      (close ? "All connections of this user are closed, in all hubs. " : "Open connections stay. ") +
      "This can’t be undone; a user who logs in again gets a valid token.",
    button: ({ close }) => (close ? "Revoke and close" : "Revoke tokens"),
    async run({ close, days }) {
      const answer = await send("/api/revocations", { user, close, keep_s: days * DAY_S });
      if (!answer.ok) return answer;
      const { nodes, missing, clients } = answer.value;
      const closed = close ? `, and ${plural(clients, "connection")} closed` : "";
      return { answer: `Tokens revoked at ${plural(nodes, "node")}${closed}.`, problem: silent(missing), isDone: true };
    },
  });
}

// ------------------------------------------------------------------------------------------- groups

// Changes the groups of a client, or of the connections of a user.
export function changeGroups(state, { hub, client, user, group }) {
  const who = client ? `the client ${client}` : `the connections of the user ${user}`;
  openDialog(state, {
    title: "Change groups",
    fields: [
      { name: "step", label: "Change", choices: [["join", "Join a group"], ["leave", "Leave a group"]], value: "join" },
      { name: "group", label: "Group", type: "text", value: group ?? "", maxlength: 1000, required: true, autocomplete: "off", spellcheck: "false" },
    ],
    effect: ({ step, group }) =>
      step === "join"
        ? `Adds ${who} to the group ${group || "…"} of the hub ${hub}, at all nodes. ${client ? "" : "Later connections of the user don’t join."}`
        : `Removes ${who} from the group ${group || "…"} of the hub ${hub}, at all nodes.`,
    button: ({ step }) => (step === "join" ? "Join" : "Leave"),
    async run({ step, group }) {
      const answer = await send(`/api/groups/${step}`, { hub, group, ...(client ? { client } : { user }) });
      if (!answer.ok) return answer;
      return { answer: step === "join" ? `Joined ${group}.` : `Left ${group}.`, problem: silent(answer.value.missing), isDone: true };
    },
  });
}

// ------------------------------------------------------------------------------------------- nodes

const GOALS = [
  ["mean", "Clients above the mean leave their nodes"],
  ["percent", "A share of the clients of full nodes leaves"],
  ["node", "All clients of one node leave"],
];

// The first press only plans: it names the number of clients, and the second moves them.
export function rebalance(state, node) {
  const names = (state.fleet?.nodes ?? []).map(({ name }) => name);
  let planned = null;
  const goal = ({ to, percent, node, per_second }) =>
    ({ to, per_second, ...(to === "percent" ? { percent } : {}), ...(to === "node" ? { node } : {}) });
  openDialog(state, {
    title: "Rebalance clients",
    fields: [
      { name: "to", label: "Goal", choices: GOALS, value: node ? "node" : "mean" },
      { name: "node", label: "Node", choices: names.map((name) => [name, name]), value: node ?? names[0], isShown: ({ to }) => to === "node" },
      { name: "percent", label: "Percent of the clients of each node above the mean", type: "number", value: 20, min: 1, max: 100, isShown: ({ to }) => to === "percent" },
      { name: "per_second", label: "Clients per second, at all nodes together", type: "number", value: PER_SECOND, min: 1, max: PER_SECOND_MAX },
    ],
    change: () => (planned = null),
    effect: ({ to, node }) =>
      "Clients with stateful reconnect move without a loss; others are asked to reconnect, and a client without automatic reconnect stays disconnected. " +
      (to === "node" ? `${node} stays ready: take it out of the load balancer first.` : "The load balancer chooses their new nodes."),
    button: () => (planned ? `Move ${plural(planned, "client")}` : "Plan"),
    async run(chosen) {
      const isPlan = planned === null;
      const answer = await send("/api/rebalance", { ...goal(chosen), dry_run: isPlan });
      if (!answer.ok) return answer;
      const { planned: number, state: outcome, reason, missing } = answer.value;
      const silence = missing.map(({ node, problem }) => `${node} ${problem}`).join("; ");
      if (isPlan && number > 0) {
        planned = number;
        return { answer: `${plural(number, "client")} would leave. Nothing has been done yet.`, problem: silence };
      }
      if (isPlan) return { answer: "No client has to leave.", problem: reason ?? silence };
      return { answer: `${count(number)} to move: ${outcome}. The figures at the top show the progress.`, problem: reason ?? silence, isDone: true };
    },
  });
}

export function stopRebalance(state) {
  openDialog(state, {
    title: "Stop the rebalance?",
    fields: [],
    effect: () => "No further clients leave their nodes. Clients that have left stay at their new nodes.",
    button: () => "Stop it",
    async run() {
      const answer = await send("/api/rebalance", undefined, "DELETE");
      if (!answer.ok) return answer;
      const { moved, planned } = answer.value;
      return { answer: `Stopped: ${count(moved)} of ${plural(planned, "client")} moved.`, isDone: true };
    },
  });
}
