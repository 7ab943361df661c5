// A chat with Express: see docs/book/src/live-updates.md.
import express from "express";
import { hub, read, Refused, rest, send, token, url } from "./nodes.mjs";

const app = express();
const stored = new Map(); // the messages of each room; in production, a table of your database
const group = (room) => `groups/${encodeURIComponent(room)}`;

// Names and arguments come from strangers, so each is checked.
const isName = (value) => typeof value === "string" && /^(?!\s|\.\.?$)[^\p{Cc}\p{Cs}]{1,64}(?<!\s)$/u.test(value);
const isRoom = (value, rooms) => rooms.includes(value);
const isText = (value) => typeof value === "string" && !/\p{Cs}/u.test(value);
const isNumber = (value) => Number.isSafeInteger(value) && value >= 0;
const takes = { Say: [isRoom, isName, isText], Since: [isRoom, isNumber], Whisper: [isName, isText] };

const methods = {
  async Say(user, room, id, text) {
    const said = stored.get(room) ?? stored.set(room, []).get(room);
    if (!said.some((message) => message.id === id)) said.push({ number: said.length + 1, id, user, text });
    const message = said.find((message) => message.id === id);
    await send(group(room), "Said", room, message.number, message.user, message.text);
    return message.number;
  },
  Since(user, room, last) {
    const missed = (stored.get(room) ?? []).slice(last, last + 100);
    return missed.map(({ number, user, text }) => [number, user, text]);
  },
  Whisper: (user, to, text) => send(`users/${encodeURIComponent(to)}`, "Whispered", user, text),
};

// Replace this by your own log-in.
app.post("/login", express.json(), ({ body }, response) => {
  if (!isName(body?.name)) throw new Refused(400, "a name has 1 to 64 characters, and no control characters");
  response.json({ hub: `${url}/${hub}`, token: token({ sub: body.name }) });
});

app.post("/hook", express.raw({ type: () => true }), async ({ headers, body: bytes }, response) => {
  const { user, category, name, query, data, body } = read(headers, bytes);
  if (name === "connect" && category === "connections") {
    const text = query.get("room") ?? "";
    const rooms = text.split(",").map((room) => room.trim()); // check here who may enter these rooms
    if (text.length > 250 || !rooms.every(isName)) throw new Refused(400, "which room?");
    return response.json({ groups: rooms, data: rooms.join(",") });
  }
  const rooms = data?.split(",") ?? []; // none at `disconnected` of a client whose node was lost
  if (category === "messages") {
    if (!Object.hasOwn(methods, name)) throw new Refused(404, "there is no such method");
    const { invocationId, arguments: given } = body;
    const isRight = given.length === takes[name].length && takes[name].every((is, index) => is(given[index], rooms));
    if (!isRight) return response.json({ type: 3, invocationId, error: `wrong arguments of ${name}` });
    return response.json({ type: 3, invocationId, result: await methods[name](user, ...given) });
  }
  for (const room of rooms) {
    const now = Date.now();
    const { value: members } = await rest("GET", `${group(room)}/connections`);
    await send(group(room), "Present", room, [...new Set(members.map((member) => member.userId))].sort(), now);
  }
  response.sendStatus(204);
});

app.use(express.static("public"));
app.use((error, request, response, next) => {
  if (!error.status) console.error(error);
  response.status(error.status ?? 500).type("text").send(error.status ? error.message : "failed");
});
const { PORT = 7071 } = process.env;
app.listen(PORT, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${PORT}`));
