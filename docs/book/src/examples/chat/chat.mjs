// A chat with Express: see docs/book/src/live-updates.md.
import express from "express";
import { hub, read, rest, send, token, url } from "./nodes.mjs";

const app = express();
const rooms = new Map(); // the messages of each room; in production, a table of your database

// Replace this by your own log-in.
app.post("/login", express.json(), ({ body }, response) => {
  response.json({ hub: `${url}/${hub}`, token: token({ sub: body.name }) });
});

const methods = {
  async Say(user, room, id, text) {
    const said = rooms.get(room) ?? rooms.set(room, []).get(room);
    if (!said.some((message) => message.id === id)) said.push({ number: said.length + 1, id, user, text });
    const { number, ...message } = said.find((message) => message.id === id);
    await send(`groups/${encodeURIComponent(room)}`, "Said", number, message.user, message.text);
    return number;
  },
  Since(user, room, last) {
    const missed = (rooms.get(room) ?? []).slice(last, last + 100);
    return missed.map(({ number, user, text }) => [number, user, text]);
  },
  Whisper: (user, room, to, text) => send(`users/${encodeURIComponent(to)}`, "Whispered", user, text),
};

app.post("/hook", express.raw({ type: () => true }), async ({ headers, body }, response) => {
  const event = read(headers, body);
  if (!event) return response.status(401).send("the signature is wrong");
  const { user, name, query, data: room, call } = event;
  if (call) {
    if (!Object.hasOwn(methods, name)) return response.sendStatus(404);
    const result = await methods[name](user, room, ...call.arguments);
    return response.json({ type: 3, invocationId: call.invocationId, result });
  }
  if (name === "connect") {
    const room = query.get("room")?.trim(); // check here who may enter the room
    return room ? response.json({ groups: [room], data: room }) : response.status(403).send("which room?");
  }
  if (!room) return response.sendStatus(204); // `disconnected` of a client whose node was lost
  const [group, now] = [`groups/${encodeURIComponent(room)}`, Date.now()];
  const { value: members } = await rest("GET", `${group}/connections`);
  await send(group, "Present", [...new Set(members.map((member) => member.userId))].sort(), now);
  response.sendStatus(204);
});

app.use(express.static("public"));
const { PORT = 7071 } = process.env;
app.listen(PORT, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${PORT}`));
