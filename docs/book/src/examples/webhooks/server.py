"""Back end of the hub `chat` in Python, behind a webhook; see docs/book/src/operators/webhooks.md. TRUNKLINE_REST is the address of the
proxy's REST data plane, and TRUNKLINE_REST_TOKEN what `trunkline token rest` prints.
"""

import hashlib, hmac, json, os, sys, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def say(user, text):
    """Sends to all clients, whoever they are connected to."""
    url, token = os.environ["TRUNKLINE_REST"] + "/api/hubs/chat/:send", os.environ["TRUNKLINE_REST_TOKEN"]
    body = json.dumps({"target": "Said", "arguments": [user, text]}).encode()
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()


METHODS = {"Add": lambda user, one, other: one + other, "Say": say}


class Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that connections are kept

    def do_POST(self):
        body, given = self.rfile.read(int(self.headers["Content-Length"])), self.headers["X-ASRS-Signature"].split(",")
        connection, user, event = (self.headers["X-ASRS-" + name] for name in ("Connection-Id", "User-Id", "Event"))
        key = os.environ["TRUNKLINE_ACCESS_KEY"].encode()
        own = "sha256=" + hmac.new(key, connection.encode(), hashlib.sha256).hexdigest()
        if not any(hmac.compare_digest(own, one.lower()) for one in given):
            return self.answer(401)
        if self.headers["X-ASRS-Category"] == "connections":
            print(event, connection, flush=True)
            return self.answer(204)
        if event not in METHODS:
            return self.answer(404)
        if self.headers["Content-Type"] == "application/json":
            call = json.loads(body)
            result = METHODS[event](user, *call["arguments"])
            return self.answer(200, json.dumps({"type": 3, "invocationId": call.get("invocationId"), "result": result}).encode())
        import msgpack  # pip install msgpack: for clients that speak MessagePack

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
