"""Drives any number of Python SignalR clients on behalf of the end-to-end tests.

    in:  {"id":1,"op":"open",...}
    out: {"id":1,"ok":true,"result":...}  or  {"id":1,"ok":false,"error":"text"}  or  {"event":"...",...}

Commands run concurrently: a reply carries the id of its command. The process ends when the pipe closes.
Numbered sequences are sent and checked here, so that 100 000 messages need not cross the pipe.
"""

import asyncio
import json
import os
import sys

from clients import OPENERS

LINE_MAX_BYTES = 16 * 1024 * 1024

clients = {}


def emit(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Sequence:
    """Checks numbered messages: none lost, duplicated or reordered."""

    def __init__(self):
        self.received, self.first, self.last, self.broken = 0, None, None, None
        self.changed = asyncio.Event()

    def take(self, number):
        self.received += 1
        if self.first is None:
            self.first = number
        elif number != self.last + 1 and self.broken is None:
            self.broken = {"expected": self.last + 1, "received": number}
        self.last = number
        self.changed.set()

    async def reached(self, count):
        """Replies when this many have arrived, or immediately if the sequence is broken."""
        while self.received < count and self.broken is None:
            self.changed.clear()
            await self.changed.wait()
        return {"received": self.received, "first": self.first, "last": self.last, "broken": self.broken}


class Listener:
    """Events of a client: messages to subscribed targets, and its end. Counted targets are only counted."""

    def __init__(self, name, options):
        self.name = name
        self.subscribed = options.get("subscribe", [])
        self.counted = {target: Sequence() for target in options.get("count", [])}
        self.answers = options.get("answers", {})

    def message(self, target, arguments):
        if target in self.counted:
            self.counted[target].take(arguments[0])
        else:
            emit({"event": "message", "client": self.name, "target": target, "arguments": arguments})

    def closed(self, error):
        emit({"event": "closed", "client": self.name, "error": error})


async def open_client(client, library="pysignalr", **options):
    listener = Listener(client, options)
    connection = OPENERS[library](listener, options)
    result = await connection.open()
    clients[client] = (connection, listener)
    return {"connectionId": result}


async def flood(client, target, **numbers):
    connection, _ = clients[client]
    for number in range(numbers["from"], numbers["from"] + numbers["count"]):
        await connection.send(target, [number])


def upload_of(arguments):
    """Name of the upload that is a call's only argument. The libraries support no other calls with uploads."""
    match arguments:
        case [{"$subject": name}]:
            return name
    return None


async def run(op, options):
    if op == "open":
        return await open_client(**options)
    if op == "flood":
        return await flood(**options)
    connection, listener = clients[options["client"]]
    if op in ("upload", "feed", "complete"):
        return await run_upload(op, connection, options)
    if op == "stream":
        items, error = await connection.stream(options["target"], options["arguments"])
        return {"items": items, "error": error}
    if op == "send" and (name := upload_of(options["arguments"])):
        return await connection.start_upload(name, options["target"])
    if op == "verify":
        return await listener.counted[options["target"]].reached(options["count"])
    if op == "close":
        return await connection.close()
    act = {"invoke": connection.invoke, "send": connection.send}[op]
    return await act(options["target"], options["arguments"])


async def run_upload(op, connection, options):
    """The library creates the upload only with its call."""
    if op == "feed":
        for item in options["items"]:
            await connection.feed(options["subject"], item)
    if op == "complete":
        await connection.complete(options["subject"])


async def answer(command):
    identifier, op = command.pop("id"), command.pop("op")
    try:
        emit({"id": identifier, "ok": True, "result": await run(op, command)})
    except Exception as error:
        emit({"id": identifier, "ok": False, "error": str(error) or type(error).__name__})


async def main():
    reader = asyncio.StreamReader(limit=LINE_MAX_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running = set()
    while line := await reader.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    # Library threads must not keep the process alive.
    os._exit(0)


asyncio.run(main())
