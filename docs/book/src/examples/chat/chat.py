"""A chat with FastAPI: see docs/book/src/live-updates.md."""

import sqlite3, time
from urllib.parse import quote

from fastapi import FastAPI, Request, Response, staticfiles

from nodes import HUB, URL, read, rest, send, token

app = FastAPI()
database = sqlite3.connect("chat.db", isolation_level=None)
database.executescript("""PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS said
    (room TEXT, number INTEGER, id TEXT, user TEXT, text TEXT, PRIMARY KEY (room, number), UNIQUE (room, id))""")


@app.post("/login")  # replace this by your own log-in
async def log_in(form: dict):
    return {"hub": f"{URL}/{HUB}", "token": token(sub=form["name"])}


async def say(user, room, id, text):
    insert = "INSERT OR IGNORE INTO said SELECT ?1, 1 + coalesce(max(number), 0), ?2, ?3, ?4 FROM said WHERE room = ?1"
    database.execute(insert, (room, id, user, text))  # ignored if the id is stored already
    said = database.execute("SELECT number, user, text FROM said WHERE room = ? AND id = ?", (room, id)).fetchone()
    await send(f"groups/{quote(room, '')}", "Said", *said)
    return said[0]


async def since(user, room, number):
    missed = "SELECT number, user, text FROM said WHERE room = ? AND number > ? ORDER BY number LIMIT 100"
    return database.execute(missed, (room, number)).fetchall()


async def whisper(user, room, to, text):
    return await send(f"users/{quote(to, '')}", "Whispered", user, text)


METHODS = {"Say": say, "Since": since, "Whisper": whisper}


@app.post("/hook")
async def hook(request: Request):
    if not (event := read(request.headers.raw, await request.body())):
        return Response("the signature is wrong", 401)
    name, room, call = event["name"], event["data"], event["call"]
    if call and name not in METHODS:
        return Response(status_code=404)
    if call:
        result = await METHODS[name](event["user"], room, *call["arguments"])
        return {"type": 3, "invocationId": call.get("invocationId"), "result": result}
    if name == "connect":  # check here who may enter the room
        room = event["query"].get("room", "").strip()
        return {"groups": [room], "data": room} if room else Response("which room?", 403)
    if room:  # missing if the node of the client was lost
        group, now = f"groups/{quote(room, '')}", time.time()
        members = (await rest("GET", f"{group}/connections"))["value"]
        await send(group, "Present", sorted({member["userId"] for member in members}), now)


app.mount("/", staticfiles.StaticFiles(directory="public", html=True))
