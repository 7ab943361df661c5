// Calls each operation of the REST data plane by a client that is generated from openapi.json, and checks results and
// errors. `schema.d.ts` is written by openapi-typescript.

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };

type Scene = { url: string; admin: string; token: string; adminToken: string; connectionToken: string; ids: Record<"ann" | "ben" | "cal" | "dan", string> };
type Answer = { response: Response; data?: unknown; error?: unknown };

const { url, admin, token, adminToken, connectionToken, ids }: Scene = JSON.parse(process.argv[2]!);
const hub = "chat";
// Reserved characters, which the generated client has to encode.
const group = "red/blue & å?";

const called = new Set<string>();
const client = (baseUrl: string, bearer: string) => {
  const made = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${bearer}` } });
  made.use({ onRequest: ({ request, schemaPath }) => void called.add(`${request.method} ${schemaPath}`) });
  return made;
};
const api = client(url, token);

// JSON with members in the order of their names.
const ordered = (value: unknown) =>
  JSON.stringify(value, (_, part) => (part?.constructor === Object ? Object.fromEntries(Object.entries(part).sort()) : part));

function same(actual: unknown, expected: unknown, place: string) {
  const [is, due] = [ordered(actual), ordered(expected)];
  if (is !== due) throw new Error(`${place}: ${is} where ${due} was due`);
}

// Result of a call with this status. Errors have the described members.
async function status<T extends Answer>(expected: number, call: Promise<T>): Promise<NonNullable<T["data"]>> {
  const { response, data, error } = await call;
  same([response.status, error], [expected, undefined], response.url);
  return data!;
}

async function refused(expected: number, code: string, call: Promise<Answer>) {
  const { response, error } = await call;
  const { message, ...rest } = error as components["schemas"]["Error"];
  same([response.status, rest.code, response.headers.get("x-ms-error-code")], [expected, code, code], response.url);
  if (!message) throw new Error(`${response.url}: an error without a message`);
}

// HEAD has no bodies, neither of results nor of errors.
async function bare(expected: number, call: Promise<Answer>) {
  const { response, data, error } = await call;
  same([response.status, data || undefined, error || undefined], [expected, undefined, undefined], response.url);
}

const path = { hub };
const ofUser = (user: string) => ({ path: { hub, user } });
const ofGroup = (name: string) => ({ path: { hub, group: name } });
const ofConnection = (connection: string) => ({ path: { hub, connection } });
const say = (text: string) => ({ target: "Say", arguments: [text] });
const to = (clients: number) => ({ nodes: 1, clients, missing: [] });

async function sends() {
  same(await status(202, api.POST("/api/hubs/{hub}/:send", { params: { path }, body: say("all") })), to(4), "all");
  const some = { path, query: { excluded: [ids.ben, ids.cal] } };
  same(await status(202, api.POST("/api/hubs/{hub}/:send", { params: some, body: say("excluded") })), to(2), "excluded");
  const framed = new TextEncoder().encode(`${JSON.stringify({ type: 1, ...say("encoded") })}\u001e`);
  const encoded = new Uint8Array([0x81, 0xa4, ...new TextEncoder().encode("json"), 0xc4, framed.length, ...framed]);
  const binary = api.POST("/api/hubs/{hub}/:send", {
    params: { path },
    headers: { "Content-Type": "application/octet-stream" },
    body: "",
    bodySerializer: () => encoded,
  });
  same(await status(202, binary), to(4), "encoded");
  same(await status(202, api.POST("/api/hubs/{hub}/users/{user}/:send", { params: ofUser("ann"), body: say("user") })), to(1), "user");
  const one = api.POST("/api/hubs/{hub}/connections/{connection}/:send", { params: ofConnection(ids.ann), body: say("connection") });
  same(await status(202, one), to(1), "connection");
  const batch: components["schemas"]["BatchMessage"][] = [
    { users: ["ann"], connections: [ids.ann, ids.ben], ...say("batch") },
    { all: true, excluded: [ids.ann], ...say("others") },
  ];
  const { results } = await status(200, api.POST("/api/hubs/{hub}/:sendBatch", { params: { path }, body: batch }));
  same(results, [to(2), to(3)], "batch");
}

async function groups() {
  const membership = (connection: string) => ({ params: { path: { hub, group, connection } } });
  for (const id of [ids.ann, ids.ben]) {
    await status(200, api.PUT("/api/hubs/{hub}/groups/{group}/connections/{connection}", membership(id)));
  }
  const sent = api.POST("/api/hubs/{hub}/groups/{group}/:send", { params: { ...ofGroup(group), query: { excluded: [ids.ben] } }, body: say("group") });
  same(await status(202, sent), to(1), "group");
  await lists();
  await counts();
  await status(200, api.DELETE("/api/hubs/{hub}/groups/{group}/connections/{connection}", membership(ids.ben)));
  await status(200, api.DELETE("/api/hubs/{hub}/connections/{connection}/groups", { params: ofConnection(ids.ann) }));
  await refused(404, "Warning.Group.NotExisted", api.GET("/api/hubs/{hub}/groups/{group}", { params: ofGroup(group) }));
  const none = "Error.Record.NotExisted";
  const [groupParams, userParams] = [{ params: ofGroup(group) }, { params: ofUser("ann") }];
  await refused(404, none, api.GET("/api/hubs/{hub}/groups/{group}/history", groupParams));
  await refused(404, none, api.DELETE("/api/hubs/{hub}/groups/{group}/history", groupParams));
  await refused(404, none, api.POST("/api/hubs/{hub}/groups/{group}/history/:finish", groupParams));
  await refused(404, none, api.GET("/api/hubs/{hub}/users/{user}/history", userParams));
  await refused(404, none, api.DELETE("/api/hubs/{hub}/users/{user}/history", userParams));
  await refused(404, none, api.POST("/api/hubs/{hub}/users/{user}/history/:finish", userParams));
  const nobody = api.PUT("/api/hubs/{hub}/groups/{group}/connections/{connection}", membership("nobody"));
  await refused(404, "Error.Connection.NotExisted", nobody);
}

async function lists() {
  const found = new Map<string, string | null | undefined>();
  let continuationToken: string | undefined;
  do {
    const params = { ...ofGroup(group), query: { maxpagesize: 1, continuationToken } };
    const page = await status(200, api.GET("/api/hubs/{hub}/groups/{group}/connections", { params }));
    for (const { connectionId, userId } of page.value) found.set(connectionId, userId);
    continuationToken = page.nextLink ? (new URL(page.nextLink).searchParams.get("continuationToken") ?? undefined) : undefined;
  } while (continuationToken);
  same([found.size, found.get(ids.ann), found.get(ids.ben)], [2, "ann", "ben"], "members");
}

// Lists and counts, while a group has the connections of two users.
async function counts() {
  const [ofAnn, partial] = [{ params: ofUser("ann") }, { params: { path, query: { partial: true } } }];
  const counted = [
    await status(200, api.GET("/api/hubs/{hub}/connections/:count", partial)),
    await status(200, api.GET("/api/hubs/{hub}/users/:count", partial)),
    await status(200, api.GET("/api/hubs/{hub}/groups/:count", partial)),
    await status(200, api.GET("/api/hubs/{hub}/groups/{group}/connections/:count", { params: ofGroup(group) })),
    await status(200, api.GET("/api/hubs/{hub}/users/{user}/connections/:count", ofAnn)),
    await status(200, api.GET("/api/hubs/{hub}/users/{user}/groups/:count", ofAnn)),
  ];
  same(counted.map(({ count, isEstimate }) => [count, isEstimate]), [4, 4, 1, 2, 1, 1].map((count) => [count, false]), "counts");
  const connections = await status(200, api.GET("/api/hubs/{hub}/connections", partial));
  same(connections.value.map(({ userId }) => userId).sort(), ["ann", "ben", "cal", "dan"], "connections");
  const users = await status(200, api.GET("/api/hubs/{hub}/users", partial));
  same(users.value.map(({ userId }) => userId).sort(), ["ann", "ben", "cal", "dan"], "users");
  const groups = await status(200, api.GET("/api/hubs/{hub}/groups", partial));
  same(groups.value, [{ group, connections: 2 }], "groups");
  const own = await status(200, api.GET("/api/hubs/{hub}/users/{user}/connections", ofAnn));
  same(own.value.map(({ connectionId }) => connectionId), [ids.ann], "connections of a user");
  const joined = await status(200, api.GET("/api/hubs/{hub}/users/{user}/groups", ofAnn));
  same(joined.value.map(({ group }) => group), [group], "groups of a user");
}

async function existence() {
  for (const [id, is] of [[ids.ann, 200], ["nobody", 404]] as const) {
    await bare(is, api.HEAD("/api/hubs/{hub}/connections/{connection}", { params: ofConnection(id) }));
  }
  const partial = { partial: true };
  await bare(200, api.HEAD("/api/hubs/{hub}/users/{user}", { params: { ...ofUser("ann"), query: partial } }));
  await bare(404, api.HEAD("/api/hubs/{hub}/groups/{group}", { params: ofGroup("none") }));
  await status(200, api.GET("/api/hubs/{hub}/connections/{connection}", { params: ofConnection(ids.ann) }));
  await refused(404, "Warning.User.NotExisted", api.GET("/api/hubs/{hub}/users/{user}", { params: ofUser("nobody") }));
}

async function usersGroups() {
  const params = { path: { hub, group, user: "ann" } };
  const brief = { ...params, query: { ttl: 60 } };
  await status(200, api.PUT("/api/hubs/{hub}/groups/{group}/users/{user}", { params: brief }));
  await bare(200, api.HEAD("/api/hubs/{hub}/groups/{group}/users/{user}", { params }));
  await status(200, api.GET("/api/hubs/{hub}/groups/{group}/users/{user}", { params }));
  await status(204, api.DELETE("/api/hubs/{hub}/groups/{group}/users/{user}", { params }));
  await status(200, api.PUT("/api/hubs/{hub}/users/{user}/groups/{group}", { params: brief }));
  await bare(200, api.HEAD("/api/hubs/{hub}/users/{user}/groups/{group}", { params }));
  await status(200, api.GET("/api/hubs/{hub}/users/{user}/groups/{group}", { params }));
  await status(204, api.DELETE("/api/hubs/{hub}/users/{user}/groups/{group}", { params }));
  await status(204, api.DELETE("/api/hubs/{hub}/users/{user}/groups", { params: ofUser("ann") }));
  await refused(404, "Info.User.NotInGroup", api.GET("/api/hubs/{hub}/users/{user}/groups/{group}", { params }));
}

async function commands() {
  const body: components["schemas"]["Command"][] = [
    { type: "SendMessage", ...say("command") },
    { type: "JoinGroup", group: "many" },
    { type: "LeaveGroup", group: "many" },
  ];
  const query = { filter: "userId eq 'ann'" };
  await status(202, api.POST("/api/hubs/{hub}/:execute", { params: { path, query }, body }));
  // @ts-expect-error: this command has no such member
  const wrong: components["schemas"]["Command"] = { type: "JoinGroup", group: "many", user: "ann" };
  await refused(400, "Error.Request.Invalid", api.POST("/api/hubs/{hub}/:execute", { params: { path, query }, body: [wrong] }));
}

async function invocations() {
  const params = ofConnection(ids.ann);
  const invoke = (target: string) => api.POST("/api/hubs/{hub}/connections/{connection}/:invoke", { params, body: { target, arguments: ["?"] } });
  const answer: components["schemas"]["Result"] = await status(200, invoke("Ask"));
  same(answer, { result: { is: [7, null, "å"] }, protocol: "json" }, "result");
  await refused(502, "Error.Invocation.Failed", invoke("Throw"));
  // @ts-expect-error: the arguments are required
  const incomplete: components["schemas"]["Message"] = { target: "Ask" };
  const invalid = api.POST("/api/hubs/{hub}/connections/{connection}/:invoke", { params, body: incomplete });
  await refused(400, "Error.Request.Invalid", invalid);
  const item = { path: { hub, connection: ids.ann, stream: "s1" } };
  const sent = api.POST("/api/hubs/{hub}/connections/{connection}/streams/{stream}/:send", { params: item, body: { n: 1 } });
  same(await status(202, sent), to(1), "item");
  const end = { ...item, query: { reason: "no more" } };
  const ended = api.POST("/api/hubs/{hub}/connections/{connection}/streams/{stream}/:complete", { params: end });
  same(await status(202, ended), to(1), "end of the stream");
}

async function tokens() {
  const query = { userId: "zoe", minutesToExpire: 5 };
  const made = await status(200, api.POST("/api/hubs/{hub}/:generateToken", { params: { path, query } }));
  same([made.token.split(".").length, new URL(made.url).host], [3, new URL(url).host], "token");
  const expireTime = "2100-01-01T00:00:00Z";
  await status(204, api.POST("/api/hubs/{hub}/connections/{connection}/:refresh", { params: ofConnection(ids.ann), body: { expireTime } }));
  const claims = [{ type: "sub", value: "ann" }, { type: "role", value: "cook" }];
  const body = { connectionToken, expireTime, claims };
  same((await status(200, api.POST("/api/hubs/{hub}/connections/:refreshAuth", { params: { path }, body }))).claims, claims, "claims");
  const asked = api.POST("/api/hubs/{hub}/connections/claims", { params: { path }, body: { connectionToken } });
  same((await status(200, asked)).claims, claims, "claims");
  const stranger = client(url, "wrong").POST("/api/hubs/{hub}/:send", { params: { path }, body: say("stranger") });
  await refused(401, "Error.Token.Invalid", stranger);
}

async function node() {
  await status(200, api.GET("/api/health"));
  await bare(200, api.HEAD("/api/health"));
  const params = { query: { scope: "node" } } as const;
  const { conditions, missing } = await status(200, client(admin, adminToken).GET("/api/conditions", { params }));
  const names: string[] = conditions.map(({ name }) => name);
  const { response, error } = await client(admin, "wrong").GET("/api/conditions", { params });
  same([response.status, typeof error?.error], [401, "string"], "conditions");
  same([Array.isArray(names), missing], [true, []], "conditions");
}

async function closes() {
  const reason = { reason: "time to go" };
  const params = { ...ofConnection(ids.ben), query: reason };
  await status(200, api.DELETE("/api/hubs/{hub}/connections/{connection}", { params }));
  await status(204, api.POST("/api/hubs/{hub}/users/{user}/:closeConnections", { params: { ...ofUser("cal"), query: reason } }));
  await status(200, api.PUT("/api/hubs/{hub}/groups/{group}/connections/{connection}", { params: { path: { hub, group, connection: ids.dan } } }));
  await status(204, api.POST("/api/hubs/{hub}/groups/{group}/:closeConnections", { params: { ...ofGroup(group), query: reason } }));
  await status(204, api.POST("/api/hubs/{hub}/:closeConnections", { params: { path, query: reason } }));
}

// Operations of the description that no function above calls.
async function uncalled() {
  const description = await (await fetch(`${url}/api/openapi.json`)).json();
  const all = Object.entries<object>(description.paths).flatMap(([path, item]) => Object.keys(item).map((name) => `${name.toUpperCase()} ${path}`));
  return all.filter((name) => /^(GET|HEAD|PUT|POST|DELETE|PATCH) /.test(name) && !called.has(name));
}

for (const part of [sends, groups, existence, usersGroups, commands, invocations, tokens, node, closes]) await part();
same(await uncalled(), [], "operations without a call");
console.log(`${called.size} operations`);
