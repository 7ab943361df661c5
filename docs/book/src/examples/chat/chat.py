"""A chat with FastAPI: see docs/book/src/live-updates.md."""

import re, sqlite3, time
from urllib.parse import quote

from fastapi import Body, FastAPI, Request, Response, staticfiles

from nodes import HUB, URL, Refused, read, rest, send, token

app = FastAPI()
database = sqlite3.connect("chat.db", isolation_level=None)
database.executescript("""PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE IF NOT EXISTS said
    (room TEXT, number INTEGER, id TEXT, user TEXT, text TEXT, PRIMARY KEY (room, number), UNIQUE (room, id))""")


def group(room):
    return f"groups/{quote(room, '')}"


# Names and arguments come from strangers, so each is checked.
NAME = re.compile(r"(?!\s|\.\.?$)[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,64}(?<!\s)")
is_name = lambda value, rooms=(): isinstance(value, str) and NAME.fullmatch(value) is not None
is_room = lambda value, rooms: value in rooms
is_text = lambda value, rooms: isinstance(value, str) and re.search(r"[\ud800-\udfff]", value) is None
is_number = lambda value, rooms: type(value) is int and 0 <= value < 2**53
TAKES = {"Say": [is_room, is_name, is_text], "Since": [is_room, is_number], "Whisper": [is_name, is_text]}


async def say(user, room, id, text):
    insert = "INSERT OR IGNORE INTO said SELECT ?1, 1 + coalesce(max(number), 0), ?2, ?3, ?4 FROM said WHERE room = ?1"
    database.execute(insert, (room, id, user, text))  # ignored if the id is stored already
    said = database.execute("SELECT number, user, text FROM said WHERE room = ? AND id = ?", (room, id)).fetchone()
    await send(group(room), "Said", room, *said)
    return said[0]


async def since(user, room, number):
    missed = "SELECT number, user, text FROM said WHERE room = ? AND number > ? ORDER BY number LIMIT 100"
    return database.execute(missed, (room, number)).fetchall()


async def whisper(user, to, text):
    return await send(f"users/{quote(to, '')}", "Whispered", user, text)


METHODS = {"Say": say, "Since": since, "Whisper": whisper}


@app.exception_handler(Refused)
async def refused(request, error):
    return Response(str(error), error.status, media_type="text/plain")


@app.post("/login")  # replace this by your own log-in
async def log_in(form=Body()):
    if not is_name(name := form.get("name") if isinstance(form, dict) else None):
        raise Refused(400, "a name has 1 to 64 characters, and no control characters")
    return {"hub": f"{URL}/{HUB}", "token": token(sub=name)}


@app.post("/hook")
async def hook(request: Request):
    event = read(request.headers.raw, await request.body())
    name, data, call = event["name"], event["data"], event["body"]
    if name == "connect" and event["category"] == "connections":
        text = event["query"].get("room", "")
        rooms = [room.strip() for room in text.split(",")]  # check here who may enter these rooms
        if len(text) > 250 or not all(map(is_name, rooms)):
            raise Refused(400, "which room?")
        return {"groups": rooms, "data": ",".join(rooms)}
    rooms = data.split(",") if data else []  # none at `disconnected` of a client whose node was lost
    if event["category"] == "messages":
        if name not in METHODS:
            raise Refused(404, "there is no such method")
        answer, given, checks = {"type": 3, "invocationId": call.get("invocationId")}, call["arguments"], TAKES[name]
        if len(given) != len(checks) or not all(check(value, rooms) for check, value in zip(checks, given)):
            return {**answer, "error": f"wrong arguments of {name}"}
        return {**answer, "result": await METHODS[name](event["user"], *given)}
    for room in rooms:
        now = time.time()
        members = (await rest("GET", f"{group(room)}/connections"))["value"]
        await send(group(room), "Present", room, sorted({member["userId"] for member in members}), now)


app.mount("/", staticfiles.StaticFiles(directory="public", html=True))
