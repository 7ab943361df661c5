"""Back end of the hub `chat` in Python, behind a webhook; see docs/book/src/operators/webhooks.md. WEBHOOK_SECRET is the secret of the hub,
TRUNKLINE_REST the address of the proxy's REST data plane, and TRUNKLINE_REST_TOKEN the output of `trunkline token rest`.
"""

import hashlib, hmac, json, os, sys, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def say(user, text):
    """Sends to all clients, at any proxy."""
    url, token = os.environ["TRUNKLINE_REST"] + "/api/hubs/chat/:send", os.environ["TRUNKLINE_REST_TOKEN"]
    body = json.dumps({"target": "Said", "arguments": [user, text]}).encode()
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()


SIGNED = [f"X-ASRS-{name}" for name in ("Connection-Id", "Hub", "Category", "Event")]
SIGNED += ["X-Trunkline-Event-Number", "X-ASRS-User-Id", "X-ASRS-User-Claims", "X-ASRS-Client-Query"]
SIGNED += ["X-Trunkline-Client-Data", "Content-Type"]


def is_genuine(headers, body, secret):
    """Returns whether the request was signed with the secret within the last five minutes."""
    at, *signatures = headers.get("X-Trunkline-Signature", "").split(",")
    seconds = at.removeprefix("t=")
    if not seconds.isdecimal() or abs(time.time() - int(seconds)) > 300:
        return False
    values = [", ".join(headers.get_all(name) or [""]) for name in SIGNED]
    # http.server reads each byte of a header as a character.
    text = "\n".join([seconds, *values, ""]).encode("latin-1") + body
    own = b"sha256=" + hmac.new(secret.encode(), text, hashlib.sha256).hexdigest().encode()
    return any(hmac.compare_digest(own, one.encode("latin-1")) for one in signatures)


METHODS = {"Add": lambda user, one, other: one + other, "Say": say}


class Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True  # else the body, written after the head, waits 40 ms for an acknowledgement

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not is_genuine(self.headers, body, os.environ["WEBHOOK_SECRET"]):
            return self.answer(401)
        connection, user, event = (self.headers["X-ASRS-" + name] for name in ("Connection-Id", "User-Id", "Event"))
        if self.headers["X-ASRS-Category"] == "connections":
            print(event, connection, flush=True)
            return self.answer(204)
        if event not in METHODS:
            return self.answer(404)
        if self.headers["Content-Type"] == "application/json":
            call = json.loads(body)
            result = METHODS[event](user, *call["arguments"])
            return self.answer(200, json.dumps({"type": 3, "invocationId": call.get("invocationId"), "result": result}).encode())
        import msgpack  # pip install msgpack: for clients with MessagePack

        _, _, invocation, _, arguments, *_ = msgpack.unpackb(body)
        self.answer(200, msgpack.packb([3, {}, invocation, 3, METHODS[event](user, *arguments)]))

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Webhook)
    print("listening on", server.server_port, flush=True)
    server.serve_forever()
