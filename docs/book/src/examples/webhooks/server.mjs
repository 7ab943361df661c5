// Back end of the hub `chat` in Node, behind a webhook; see docs/book/src/operators/webhooks.md. TRUNKLINE_REST is the address of the proxy's
// REST data plane, and TRUNKLINE_REST_TOKEN what `trunkline token rest` prints.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const { TRUNKLINE_ACCESS_KEY, TRUNKLINE_REST, TRUNKLINE_REST_TOKEN } = process.env;

const methods = {
  Add: (user, one, other) => one + other,
  // Sends to all clients, whoever they are connected to.
  Say: async (user, text) => {
    const headers = { authorization: `Bearer ${TRUNKLINE_REST_TOKEN}`, "content-type": "application/json" };
    const body = JSON.stringify({ target: "Said", arguments: [user ?? null, text] });
    await fetch(`${TRUNKLINE_REST}/api/hubs/chat/:send`, { method: "POST", headers, body });
  },
};

async function serve({ headers }, body) {
  const [connection, user, event] = ["connection-id", "user-id", "event"].map((name) => headers[`x-asrs-${name}`]);
  const own = Buffer.from("sha256=" + createHmac("sha256", TRUNKLINE_ACCESS_KEY).update(connection).digest("hex"));
  const given = headers["x-asrs-signature"].toLowerCase().split(",").map((one) => Buffer.from(one));
  if (!given.some((one) => one.length === own.length && timingSafeEqual(one, own))) return [401];
  if (headers["x-asrs-category"] === "connections") {
    console.log(event, connection);
    return [204];
  }
  if (!Object.hasOwn(methods, event)) return [404];
  if (headers["content-type"] === "application/json") {
    const { invocationId, arguments: given } = JSON.parse(body);
    return [200, JSON.stringify({ type: 3, invocationId, result: (await methods[event](user, ...given)) ?? null })];
  }
  const { decode, encode } = await import("@msgpack/msgpack"); // for clients that speak MessagePack
  const [, , invocationId, , values] = decode(body);
  return [200, encode([3, {}, invocationId, 3, (await methods[event](user, ...values)) ?? null])];
}

const server = createServer(async (request, response) => {
  const [status, body] = await serve(request, Buffer.concat(await request.toArray())).catch(() => [500]);
  response.writeHead(status).end(body);
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log("listening on", server.address().port));
