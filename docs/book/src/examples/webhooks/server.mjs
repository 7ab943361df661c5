// Back end of the hub `chat` in Node, behind a webhook; see docs/book/src/operators/webhooks.md. WEBHOOK_SECRET is the secret of the hub,
// TRUNKLINE_REST the address of the proxy's REST data plane, and TRUNKLINE_REST_TOKEN the output of `trunkline token rest`.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const { WEBHOOK_SECRET, TRUNKLINE_REST, TRUNKLINE_REST_TOKEN } = process.env;

const methods = {
  Add: (user, one, other) => one + other,
  // Sends to all clients, at any proxy.
  Say: async (user, text) => {
    const headers = { authorization: `Bearer ${TRUNKLINE_REST_TOKEN}`, "content-type": "application/json" };
    const body = JSON.stringify({ target: "Said", arguments: [user ?? null, text] });
    await fetch(`${TRUNKLINE_REST}/api/hubs/chat/:send`, { method: "POST", headers, body });
  },
};

const signed = ["x-asrs-connection-id", "x-asrs-hub", "x-asrs-category", "x-asrs-event"].concat(
  ["x-trunkline-event-number", "x-asrs-user-id", "x-asrs-user-claims", "x-asrs-client-query"],
  ["x-trunkline-client-data", "content-type"],
);

// Returns whether the request was signed with the secret within the last five minutes.
function isGenuine(headers, body) {
  const [time, ...signatures] = (headers["x-trunkline-signature"] ?? "").split(",");
  const seconds = time.replace(/^t=/, "");
  if (!(Math.abs(Date.now() / 1000 - Number(seconds)) < 300)) return false;
  const head = [seconds, ...signed.map((name) => headers[name] ?? ""), ""].join("\n");
  // Node reads each byte of a header as a character.
  const text = Buffer.concat([Buffer.from(head, "latin1"), body]);
  const own = Buffer.from("sha256=" + createHmac("sha256", WEBHOOK_SECRET).update(text).digest("hex"));
  const given = signatures.map((one) => Buffer.from(one));
  return given.some((one) => one.length === own.length && timingSafeEqual(one, own));
}

async function serve({ headers }, body) {
  if (!isGenuine(headers, body)) return [401];
  const [connection, user, event] = ["connection-id", "user-id", "event"].map((name) => headers[`x-asrs-${name}`]);
  if (headers["x-asrs-category"] === "connections") {
    console.log(event, connection);
    return [204];
  }
  if (!Object.hasOwn(methods, event)) return [404];
  if (headers["content-type"] === "application/json") {
    const { invocationId, arguments: given } = JSON.parse(body);
    return [200, JSON.stringify({ type: 3, invocationId, result: (await methods[event](user, ...given)) ?? null })];
  }
  const { decode, encode } = await import("@msgpack/msgpack"); // for clients with MessagePack
  const [, , invocationId, , values] = decode(body);
  return [200, encode([3, {}, invocationId, 3, (await methods[event](user, ...values)) ?? null])];
}

const server = createServer(async (request, response) => {
  const [status, body] = await serve(request, Buffer.concat(await request.toArray())).catch(() => [500]);
  response.writeHead(status).end(body);
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening on", server.address().port));
