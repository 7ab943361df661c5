"""Answers of a model that survive reloads, restarts and cut networks, with FastAPI: see docs/book/src/ai-answer.md."""

import asyncio, contextlib, os, sqlite3, uuid

from fastapi import Body, FastAPI, HTTPException, staticfiles

from nodes import HUB, URL, rest, token

TOKENS, PAUSE = int(os.environ.get("TOKENS", 300)), float(os.environ.get("PAUSE_MS", 30)) / 1000
USER = "ann"  # replace this by the user of your own log-in
tasks = {}  # of the answers that are being written
database = sqlite3.connect("answers.db", isolation_level=None)
database.executescript("""PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS answers (id TEXT PRIMARY KEY, user TEXT, question TEXT, state TEXT, text TEXT)""")


async def model(question, text):
    """Yields the tokens that follow the text so far. Replace it by your model."""
    length = 0
    for word in [f"{question} I count:", *(f" {number}" for number in range(1, TOKENS + 1))]:
        length += len(word)
        if length > len(text):
            await asyncio.sleep(PAUSE)
            yield word


async def write(id):
    """Writes an answer from the end of its record on. A chunk has a number, a text, and the last one an outcome."""
    find = lambda column: database.execute(f"SELECT {column} FROM answers WHERE id = ?", (id,)).fetchone()[0]
    group, sent, unsent, page = f"groups/answer-{id}", [], [], {"position": "0"}
    while page["position"] != page.get("newest"):
        page = await rest("GET", f"{group}/history?after={page['position']}")
        sent += [item["arguments"] for item in page["items"]]
    if sent and sent[0][0] != 1:
        await rest("DELETE", f"{group}/history")  # the first chunks were lost, too: from the beginning
        sent.clear()
    text, outcome = "".join(text for _, text, _ in sent), sent[-1][2] if sent else None

    async def gather():
        async for word in model(find("question"), text):
            unsent.append(word)

    async def send():
        chunk = {"target": "Added", "arguments": sent[-1]}
        answer = await rest("POST", f"{group}/:send", chunk, f"{id}-{len(sent)}")
        return answer["position"].endswith(f"-{len(sent)}")

    gathering = asyncio.create_task(gather())
    try:
        while not outcome:
            await asyncio.sleep(0.05)
            if find("state") == "stopping":
                outcome = "stopped"
            elif gathering.done() and (error := gathering.exception()):
                outcome = "failed"
                print(f"the model failed in answer {id}: {error!r}", flush=True)
            elif gathering.done():
                outcome = "finished"
            if unsent or outcome:
                sent.append([len(sent) + 1, "".join(unsent), outcome])
                unsent.clear()
                while not await send():  # the record was lost with its node: again, as one chunk
                    await rest("DELETE", f"{group}/history")
                    sent[:] = [[1, "".join(text for _, text, _ in sent), outcome]]
    finally:
        gathering.cancel()
    await rest("POST", f"{group}/history/:finish")
    text = "".join(text for _, text, _ in sent)
    database.execute("UPDATE answers SET state = ?, text = ? WHERE id = ?", (outcome, text, id))


async def work(id):
    while id in tasks:
        try:
            await write(id)
            del tasks[id]
        except Exception as error:
            print(f"answer {id} goes on in a second: {error!r}", flush=True)
            await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def lifespan(app):
    for (id,) in database.execute("SELECT id FROM answers WHERE text IS NULL").fetchall():
        tasks[id] = asyncio.create_task(work(id))  # not finished when the process ended
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/ask")
async def ask(question: str = Body(embed=True)):
    id = str(uuid.uuid4())
    database.execute("INSERT INTO answers VALUES (?, ?, ?, 'writing', NULL)", (id, USER, question))
    tasks[id] = asyncio.create_task(work(id))
    return await get(id)


@app.get("/answers/{id}")
async def get(id):
    found = database.execute("SELECT state, text FROM answers WHERE id = ? AND user = ?", (id, USER)).fetchone()
    if not found:
        raise HTTPException(404, "there is no such answer")
    group = f"answer-{id}"
    access = token(sub=USER, **{"trunkline.follow": group})
    return {"answer": id, "state": found[0], "text": found[1], "hub": f"{URL}/{HUB}", "group": group, "token": access}


@app.post("/stop/{id}")
async def stop(id):
    database.execute("UPDATE answers SET state = 'stopping' WHERE id = ? AND user = ? AND text IS NULL", (id, USER))


app.mount("/", staticfiles.StaticFiles(directory="public", html=True))
