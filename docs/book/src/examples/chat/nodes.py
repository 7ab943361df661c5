"""The nodes, for a back end in Python: tokens, REST calls, and signatures of webhooks. Copy this file."""

import asyncio, functools, hashlib, hmac, json, os, re, sys, time
from urllib.parse import parse_qsl

import aiohttp, jwt

HUB, URL = "chat", os.environ.get("NODES_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("CHAT_KEY") or sys.exit("CHAT_KEY is not set")
SIGNED = [f"x-asrs-{name}" for name in ("connection-id", "hub", "category", "event")]
SIGNED += ["x-trunkline-event-number", "x-asrs-user-id", "x-asrs-user-claims", "x-asrs-client-query"]


@functools.cache
def session():
    """The client of all REST calls, which keeps its connections open."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))


def token(**claims):
    """Signs a token that is valid for an hour."""
    now = int(time.time())
    return jwt.encode({**claims, "iat": now, "exp": now + 3600}, KEY, "HS256")


async def rest(method, path, body=None):
    """Calls the REST API. It is no error if the connection, group or user does not exist."""
    if {".", ".."} & set(path.split("/")):  # "users/.." would address all clients
        raise ValueError(f"invalid name in {path}")
    api = f"{URL}/api/hubs/{HUB}/"
    for wait in [1] * 8 + [0]:
        headers = {"authorization": "Bearer " + token(aud=api)}
        async with session().request(method, api + path, headers=headers, json=body) as response:
            text, code = await response.text(), response.headers.get("x-ms-error-code", "")
        if response.status != 503 or not code:
            break
        await asyncio.sleep(wait)  # nothing was sent: the node is stopping or busy, or another one has crashed
    if response.status >= 300 and not re.match(r"Warning|Info|Error\.Connection", code):
        raise RuntimeError(f"{method} {api}{path}: {response.status} {text}")
    return json.loads(text or "{}")


async def send(path, target, *arguments):
    """Calls a method of the clients of a path, such as `groups/red`. Returns their number."""
    return (await rest("POST", f"{path}/:send", {"target": target, "arguments": arguments})).get("clients", 0)


def read(headers, body):
    """Returns the event of a webhook, or None if its signature is wrong or older than five minutes."""
    head = {name.decode(): value.decode(errors="replace") for name, value in headers}
    seconds, *signatures = head.get("x-trunkline-signature", "").removeprefix("t=").split(",")
    data = head.get("x-trunkline-client-data")  # of the answer to `connect`; signed if there is any
    values = [head.get(name, "") for name in SIGNED] + [data] * (data is not None)
    text = "\n".join([seconds, *values, ""]).encode() + body
    own = b"sha256=" + hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest().encode()
    if not any(hmac.compare_digest(own, one.encode()) for one in signatures) or abs(time.time() - int(seconds)) > 300:
        return None
    connection, _, category, name, _, user, _, query = values[:8]
    query, call = dict(parse_qsl(query.lstrip("?"))), json.loads(body) if category == "messages" else None
    return {"connection": connection, "user": user, "name": name, "query": query, "data": data, "call": call}
