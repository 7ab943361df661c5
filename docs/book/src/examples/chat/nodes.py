"""The nodes, for a back end in Python: tokens, REST calls, and signatures of webhooks. Copy this file."""

import asyncio, datetime, functools, hashlib, hmac, json, os, re, sys, time
from urllib.parse import parse_qsl

import aiohttp, jwt

HUB, URL = "chat", os.environ.get("NODES_URL", "http://127.0.0.1:8080")
KEY = os.environ.get("CHAT_KEY") or sys.exit("CHAT_KEY is not set")
SIGNED = [f"x-asrs-{name}" for name in ("connection-id", "hub", "category", "event")]
SIGNED += ["x-trunkline-event-number", "x-asrs-user-id", "x-asrs-user-claims", "x-asrs-client-query"]
SIGNED += ["x-trunkline-client-data", "content-type"]


@functools.cache
def session():
    """The client of all REST calls, which keeps its connections open."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))


def token(**claims):
    """Signs a token that is valid for an hour."""
    now = int(time.time())
    return jwt.encode({"iat": now, "exp": now + 3600, **claims}, KEY, "HS256")


async def rest(method, path, body=None, key=None):
    """Calls the REST API. It is no error if the connection, group or user does not exist.

    With a key, a recorded message is recorded once. So it is repeated for a minute, also if there is no response."""
    if {".", ".."} & set(path.split("/")):  # "users/.." would address all clients
        raise ValueError(f"invalid name in {path}")
    api = f"{URL}/api/hubs/{HUB}/"
    for wait in [1] * (60 if key else 8) + [0]:
        headers = {"authorization": "Bearer " + token(aud=api), **({"idempotency-key": key} if key else {})}
        try:
            async with session().request(method, api + path, headers=headers, json=body) as response:
                text, code = await response.text(), response.headers.get("x-ms-error-code", "")
            if response.status != 503 or not code:
                break
        except (aiohttp.ClientError, TimeoutError):  # it may have been executed
            if not key or not wait:
                raise
        await asyncio.sleep(wait)  # 503: nothing was sent. The node is stopping or busy, or another one has crashed
    if response.status >= 300 and not re.match(r"Warning|Info|Error\.Connection", code):
        raise RuntimeError(f"{method} {api}{path}: {response.status} {text}")
    return json.loads(text or "{}")


async def send(path, target, *arguments):
    """Calls a method of the clients of a path, such as `groups/red`. Returns their number."""
    return (await rest("POST", f"{path}/:send", {"target": target, "arguments": arguments})).get("clients", 0)


class Refused(Exception):
    """An error whose text is the answer, with this status."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def read_claims(text):
    """Returns the claims of a user as pairs of type and value. A search in the text would find what users write into other claims."""
    pairs = []
    for part in text.split(", ") if text else []:
        name, colon, value = part.partition(": ")
        if colon:
            pairs.append([name, value])
        elif pairs:
            pairs[-1][1] += ", " + part  # a comma inside a value
    return [(name.replace("%2C", ","), value.replace("%2C", ",")) for name, value in pairs]


def read(headers, body):
    """Returns the event of a webhook. Raises an error if its signature is wrong or older than five minutes."""
    head = {name.decode(): value.decode(errors="replace") for name, value in headers}
    seconds, *signatures = head.get("x-trunkline-signature", "").removeprefix("t=").split(",")
    data = head.get("x-trunkline-client-data")  # of the answer to `connect`
    values = [head.get(name, "") for name in SIGNED]
    text = "\n".join([seconds, *values, ""]).encode() + body
    own = b"sha256=" + hmac.new(KEY.encode(), text, hashlib.sha256).hexdigest().encode()
    if not any(hmac.compare_digest(own, one.encode()) for one in signatures):
        raise Refused(401, "the signature is wrong: compare CHAT_KEY with the node's webhook secret")
    there, here = (datetime.datetime.fromtimestamp(int(at), datetime.timezone.utc) for at in (seconds, time.time()))
    if abs((here - there).total_seconds()) > 300:
        raise Refused(401, f"the time is off: the node signed at {there}, and the clock here shows {here}")
    if not head.get("content-type", "").startswith("application/json"):
        raise Refused(415, "this back end reads JSON, and no MessagePack")
    connection, _, category, name, _, user, claims, query = values[:8]
    event = {"connection": connection, "user": user, "category": category, "name": name, "claims": read_claims(claims)}
    return {**event, "query": dict(parse_qsl(query.lstrip("?"))), "data": data, "body": json.loads(body)}
