// The nodes, for a back end in Node: tokens, REST calls, and signatures of webhooks. Copy this file.
import { createHmac, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const { CHAT_KEY: key, NODES_URL = "http://127.0.0.1:8080" } = process.env;
const signed = ["x-asrs-connection-id", "x-asrs-hub", "x-asrs-category", "x-asrs-event", "x-trunkline-event-number"];
signed.push("x-asrs-user-id", "x-asrs-user-claims", "x-asrs-client-query", "x-trunkline-client-data", "content-type");
if (!key) throw new Error("CHAT_KEY is not set");
export const [hub, url] = ["chat", NODES_URL];
const { default: http } = await import(url.startsWith("https:") ? "node:https" : "node:http");
const agent = new http.Agent({ keepAlive: true }); // keeps its connections open

// Signs a token that is valid for an hour.
export function token(claims) {
  const now = Math.floor(Date.now() / 1000);
  const parts = [{ alg: "HS256", typ: "JWT" }, { ...claims, iat: now, exp: now + 3600 }];
  const text = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${text}.${createHmac("sha256", key).update(text).digest("base64url")}`;
}

// Calls the REST API. It is no error if the connection, group or user does not exist. With a key, a recorded message is
// recorded once. So it is repeated for a minute, also if there is no response.
export async function rest(method, path, body, key, attempt = 1) {
  // "users/.." would address all clients.
  if (/(^|\/)\.\.?(\/|$)/.test(path)) throw new Error(`invalid name in ${path}`);
  const api = `${url}/api/hubs/${hub}/`;
  const headers = { authorization: `Bearer ${token({ aud: api })}`, "content-type": "application/json" };
  if (key) headers["idempotency-key"] = key;
  const isLast = attempt > (key ? 60 : 8);
  const again = () => sleep(1000).then(() => rest(method, path, body, key, attempt + 1));
  const request = http.request(api + path, { agent, method, headers, signal: AbortSignal.timeout(10_000) });
  request.end(body === undefined ? undefined : JSON.stringify(body));
  let response, text;
  try {
    [response] = await once(request, "response");
    text = Buffer.concat(await response.toArray()).toString();
  } catch (error) {
    if (key && !isLast) return again(); // it may have been executed
    throw error;
  }
  const { statusCode: status, headers: head } = response;
  const code = head["x-ms-error-code"] ?? "";
  // Nothing was sent: the node is stopping or busy, or another one has crashed.
  if (status === 503 && code && !isLast) return again();
  const isMissing = /^(Warning|Info|Error\.Connection)/.test(code);
  if (status >= 300 && !isMissing) throw new Error(`${method} ${api}${path}: ${status} ${text}`);
  return JSON.parse(text || "{}");
}

// Calls a method of the clients of a path, such as `groups/red`. Returns their number.
export const send = async (path, target, ...values) =>
  (await rest("POST", `${path}/:send`, { target, arguments: values })).clients ?? 0;

// An error whose text is the answer, with this status.
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// Returns the claims of a user as pairs of type and value. A search in the text would find what users write into other claims.
function readClaims(text) {
  const pairs = [];
  for (const part of text ? text.split(", ") : []) {
    const colon = part.indexOf(": ");
    if (colon >= 0) pairs.push([part.slice(0, colon), part.slice(colon + 2)]);
    else if (pairs.length > 0) pairs.at(-1)[1] += `, ${part}`; // a comma inside a value
  }
  return pairs.map((pair) => pair.map((one) => one.replaceAll("%2C", ",")));
}

// Returns the event of a webhook. Throws if its signature is wrong or older than five minutes.
export function read(headers, body) {
  const [seconds, ...signatures] = (headers["x-trunkline-signature"] ?? "").replace(/^t=/, "").split(",");
  const data = headers["x-trunkline-client-data"]; // of the answer to `connect`
  const text = [seconds, ...signed.map((name) => headers[name] ?? ""), ""].join("\n");
  const own = Buffer.from("sha256=" + createHmac("sha256", key).update(text, "latin1").update(body).digest("hex"));
  const given = signatures.map((one) => Buffer.from(one, "latin1"));
  const isOwn = given.some((one) => one.length === own.length && timingSafeEqual(one, own));
  if (!isOwn) throw new Refused(401, "the signature is wrong: compare CHAT_KEY with the node's webhook secret");
  const [there, here] = [Number(seconds) * 1000, Date.now()].map((time) => new Date(time));
  const clocks = `the node signed at ${there.toISOString()}, and the clock here shows ${here.toISOString()}`;
  if (Math.abs(here - there) > 300_000) throw new Refused(401, `the time is off: ${clocks}`);
  const isJson = headers["content-type"]?.startsWith("application/json");
  if (!isJson) throw new Refused(415, "this back end reads JSON, and no MessagePack");
  const utf8 = (text = "") => Buffer.from(text, "latin1").toString();
  const header = (name) => utf8(headers[`x-asrs-${name}`]);
  const [connection, user, category, name] = ["connection-id", "user-id", "category", "event"].map(header);
  const [claims, query] = [readClaims(header("user-claims")), new URLSearchParams(header("client-query"))];
  return { connection, user, category, name, claims, query, data: data && utf8(data), body: JSON.parse(body) };
}
