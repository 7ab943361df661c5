"""Calls each operation of the REST data plane by a client that is generated from openapi.json, and checks results and
errors. The package `rest` is written by openapi-python-client."""

import io
import json
import pkgutil
import sys
from datetime import datetime, timezone
from urllib.parse import parse_qs, urlsplit

from rest import AuthenticatedClient
from rest import models as m
from rest.api import admin as admin_operations
from rest.api import hubs, node
from rest.types import UNSET, File

SCENE = json.loads(sys.argv[1])
HUB = "chat"
# Reserved characters, which the generated client has to encode.
GROUP = "red/blue & å?"
ANN, BEN, CAL, DAN = (SCENE["ids"][name] for name in ("ann", "ben", "cal", "dan"))

api = AuthenticatedClient(base_url=SCENE["url"], token=SCENE["token"], raise_on_unexpected_status=True)
called = set()


def call(operation, *arguments, client=api, package=hubs, **options):
    module = __import__(f"{package.__name__}.{operation}", fromlist=["sync_detailed"])
    called.add(module.__name__)
    return module.sync_detailed(*arguments, client=client, **options)


def same(actual, expected, place):
    assert actual == expected, f"{place}: {actual!r} where {expected!r} was due"


def status(expected, operation, *arguments, **options):
    """Result of a call with this status."""
    answer = call(operation, *arguments, **options)
    same(answer.status_code, expected, f"{operation} {answer.content}")
    return answer.parsed


def refused(expected, code, operation, *arguments, **options):
    answer = call(operation, *arguments, **options)
    error = answer.parsed
    assert isinstance(error, m.Error) and error.message, f"{operation}: {answer}"
    same((answer.status_code, error.code, answer.headers["x-ms-error-code"]), (expected, code, code), operation)


def say(text):
    return m.Message(target="Say", arguments=[text])


def to(clients):
    return m.Delivery(nodes=1, clients=clients, missing=[])


def sends():
    same(status(202, "send_to_all", HUB, body=say("all")), to(4), "all")
    same(status(202, "send_to_all", HUB, body=say("excluded"), excluded=[BEN, CAL]), to(2), "excluded")
    framed = json.dumps({"type": 1, "target": "Say", "arguments": ["encoded"]}).encode() + b"\x1e"
    encoded = b"\x81\xa4json\xc4" + bytes([len(framed)]) + framed
    same(status(202, "send_to_all", HUB, body=File(payload=io.BytesIO(encoded))), to(4), "encoded")
    same(status(202, "send_to_user", HUB, "ann", body=say("user")), to(1), "user")
    same(status(202, "send_to_connection", HUB, ANN, body=say("connection")), to(1), "connection")
    batch = [
        m.BatchMessage(users=["ann"], connections=[ANN, BEN], target="Say", arguments=["batch"]),
        m.BatchMessage(all_=True, excluded=[ANN], target="Say", arguments=["others"]),
    ]
    same(status(200, "send_batch", HUB, body=batch), m.BatchResults(results=[to(2), to(3)]), "batch")


def groups():
    for connection in (ANN, BEN):
        status(200, "join_group", HUB, GROUP, connection)
    same(status(202, "send_to_group", HUB, GROUP, body=say("group"), excluded=[BEN]), to(1), "group")
    same(members(), {ANN: "ann", BEN: "ben"}, "members")
    counts()
    status(200, "leave_group", HUB, GROUP, BEN)
    status(200, "leave_all_groups", HUB, ANN)
    refused(404, "Warning.Group.NotExisted", "group_exists_by_get", HUB, GROUP)
    for name, of in (("group", GROUP), ("user", "ann")):
        for act in ("read", "delete", "finish"):
            refused(404, "Error.Record.NotExisted", f"{act}_{name}_history", HUB, of)
    refused(404, "Error.Connection.NotExisted", "join_group", HUB, GROUP, "nobody")


def members():
    found, token = {}, UNSET
    while True:
        page = status(200, "list_members", HUB, GROUP, maxpagesize=1, continuation_token=token)
        found.update({member.connection_id: member.user_id for member in page.value})
        if not page.next_link:
            return found
        token = parse_qs(urlsplit(page.next_link).query)["continuationToken"][0]


def counts():
    """Lists and counts, while a group has the connections of two users."""
    for expected, operation, *names in (
        (4, "count_connections"),
        (4, "count_users"),
        (1, "count_groups"),
        (2, "count_members", GROUP),
        (1, "count_user_connections", "ann"),
        (1, "count_user_groups", "ann"),
    ):
        same(status(200, operation, HUB, *names), m.Count(count=expected, is_estimate=False), operation)
    everybody = {"ann", "ben", "cal", "dan"}
    for operation in ("list_connections", "list_users"):
        same({entry.user_id for entry in status(200, operation, HUB, partial=True).value}, everybody, operation)
    same([(entry.group, entry.connections) for entry in status(200, "list_groups", HUB).value], [(GROUP, 2)], "groups")
    own = status(200, "list_user_connections", HUB, "ann")
    same([entry.connection_id for entry in own.value], [ANN], "connections of a user")
    same([entry.group for entry in status(200, "list_user_groups", HUB, "ann").value], [GROUP], "groups of a user")


def existence():
    status(200, "connection_exists", HUB, ANN)
    status(404, "connection_exists", HUB, "nobody")
    status(200, "user_exists", HUB, "ann", partial=True)
    status(404, "group_exists", HUB, "none")
    status(200, "connection_exists_by_get", HUB, ANN)
    refused(404, "Warning.User.NotExisted", "user_exists_by_get", HUB, "nobody")


def users_groups():
    status(200, "add_user_to_group", HUB, GROUP, "ann", ttl=60)
    for operation in ("group_has_user", "group_has_user_by_get"):
        status(200, operation, HUB, GROUP, "ann")
    status(204, "remove_user_from_group", HUB, GROUP, "ann")
    status(200, "user_joins_group", HUB, "ann", GROUP, ttl=60)
    for operation in ("user_is_in_group", "user_is_in_group_by_get"):
        status(200, operation, HUB, "ann", GROUP)
    status(204, "user_leaves_group", HUB, "ann", GROUP)
    status(204, "user_leaves_all_groups", HUB, "ann")
    refused(404, "Info.User.NotInGroup", "user_is_in_group_by_get", HUB, "ann", GROUP)


def commands():
    body = [
        m.SendMessageCommand(type_="SendMessage", target="Say", arguments=["command"]),
        m.JoinGroupCommand(type_="JoinGroup", group="many"),
        m.LeaveGroupCommand(type_="LeaveGroup", group="many"),
    ]
    status(202, "execute", HUB, body=body, filter_="userId eq 'ann'")
    nothing = m.JoinGroupCommand(type_="JoinGroup", group="")
    refused(400, "Error.Request.Invalid", "execute", HUB, body=[nothing])


def invocations():
    answer = status(200, "invoke", HUB, ANN, body=m.Message(target="Ask", arguments=["?"]))
    same((answer.result, answer.protocol), ({"is": [7, None, "å"]}, "json"), "result")
    refused(502, "Error.Invocation.Failed", "invoke", HUB, ANN, body=m.Message(target="Throw", arguments=["?"]))
    refused(400, "Error.Request.Invalid", "invoke", HUB, ANN, body=m.Message(target="", arguments=[]))
    same(status(202, "send_item", HUB, ANN, "s1", body={"n": 1}), to(1), "item")
    same(status(202, "complete_stream", HUB, ANN, "s1", reason="no more"), to(1), "end of the stream")


def tokens():
    made = status(200, "generate_token", HUB, user_id="zoe", minutes_to_expire=5)
    same((made.token.count("."), urlsplit(made.url).netloc), (2, urlsplit(SCENE["url"]).netloc), "token")
    end = datetime(2100, 1, 1, tzinfo=timezone.utc)
    status(204, "refresh_connection", HUB, ANN, body=m.ExpireTime(expire_time=end))
    claims = [m.Claim(type_="sub", value="ann"), m.Claim(type_="role", value="cook")]
    log_in = m.LogIn(connection_token=SCENE["connectionToken"], expire_time=end, claims=claims)
    same(status(200, "refresh_auth", HUB, body=log_in).claims, claims, "claims")
    asked = m.ConnectionToken(connection_token=SCENE["connectionToken"])
    same(status(200, "get_connection_claims", HUB, body=asked).claims, claims, "claims")
    stranger = AuthenticatedClient(base_url=SCENE["url"], token="wrong")
    refused(401, "Error.Token.Invalid", "send_to_all", HUB, body=say("stranger"), client=stranger)


def of_the_node():
    for operation in ("health", "health_by_head"):
        status(200, operation, package=node)
    admin, stranger = (AuthenticatedClient(base_url=SCENE["admin"], token=token) for token in (SCENE["adminToken"], "wrong"))
    options = {"package": admin_operations, "scope": m.ConditionsScope.NODE}
    answer = status(200, "conditions", client=admin, **options)
    assert all(isinstance(condition, m.Condition) for condition in answer.conditions), answer
    same(answer.missing, [], "conditions")
    assert isinstance(status(401, "conditions", client=stranger, **options), m.AdminError)


def closes():
    status(200, "close_connection", HUB, BEN, reason="time to go")
    status(204, "close_user", HUB, "cal", reason="time to go")
    status(200, "join_group", HUB, GROUP, DAN)
    status(204, "close_group", HUB, GROUP, reason="time to go")
    status(204, "close_all", HUB, reason="time to go")


for part in (sends, groups, existence, users_groups, commands, invocations, tokens, of_the_node, closes):
    part()
generated = {f"{package.__name__}.{module.name}" for package in (hubs, node, admin_operations) for module in pkgutil.iter_modules(package.__path__)}
same(generated - called, set(), "operations without a call")
print(f"{len(called)} operations")
