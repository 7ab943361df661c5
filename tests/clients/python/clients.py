"""Common interface of the client libraries: open, invoke, send, stream, upload, answer, close."""

import asyncio
import itertools
import logging
import socket

from pysignalr.client import ClientStream, SignalRClient
from pysignalr.protocol.json import JSONProtocol
from pysignalr.protocol.messagepack import MessagepackProtocol
from signalrcore.hub.handlers import StreamHandler
from signalrcore.hub_connection_builder import HubConnectionBuilder
from signalrcore.messages.stream_invocation_message import StreamInvocationMessage
from signalrcore.subject import Subject
from signalrcore.types import HttpTransportType, HubProtocolEncoding


def headers_of(options):
    """pysignalr calls its token factory only after connecting, so the token is sent as a header."""
    headers = dict(options.get("headers") or {})
    if token := options.get("accessToken"):
        headers["Authorization"] = f"Bearer {token}"
    return headers


def answers_to(order):
    """Behaviour of handlers when a result is requested, with the orders of the JavaScript clients."""

    def throw():
        raise RuntimeError(order["throws"])

    if order == "nothing":
        return [lambda: None]
    if "throws" in order:
        return [throw]
    return [lambda value=value: value for value in order.get("values", [order.get("value")])]


class PySignalR:
    """pysignalr: asyncio, WebSockets only, negotiates version 0."""

    def __init__(self, listener, options):
        self.listener = listener
        protocol = MessagepackProtocol() if options.get("protocol") == "messagepack" else JSONProtocol()
        self.client = SignalRClient(options["url"], protocol=protocol, headers=headers_of(options))
        self.client._transport._skip_negotiation = options.get("skipNegotiation", False)
        if self.client._transport._skip_negotiation:
            self.client._transport._url = options["url"].replace("http", "ws", 1)
        self.opened = asyncio.get_running_loop().create_future()
        self.closing = False
        for target in [*listener.subscribed, *listener.counted]:
            self.client.on(target, self._handler(target))
        for target, order in listener.answers.items():
            for answer in answers_to(order):
                self.client.on(target, self._answerer(answer))
        self.uploads = {}
        self.client.on_open(self._on_open)
        self.client.on_close(self._on_close)
        self.client.on_error(self._on_error)

    def _handler(self, target):
        async def handle(arguments):
            self.listener.message(target, arguments)

        return handle

    def _answerer(self, answer):
        async def handle(arguments):
            return answer()

        return handle

    async def _on_open(self):
        if not self.opened.done():
            self.opened.set_result(None)

    async def _on_close(self):
        # Disables the automatic reconnect with the old token, because the tests expect the end.
        if self.opened.done() and not self.closing:
            self._end(None)
            self.task.cancel()

    async def _on_error(self, message):
        """Takes errors of calls from their completions."""

    def _end(self, error):
        self.closing = True
        self.listener.closed(error)

    async def _run(self):
        try:
            await self.client.run()
        except asyncio.CancelledError:
            pass
        except Exception as error:
            text = str(error) or type(error).__name__
            if not self.opened.done():
                self.opened.set_exception(RuntimeError(text))
            elif not self.closing:
                self._end(text)

    async def open(self):
        self.task = asyncio.create_task(self._run())
        await self.opened
        url = self.client._transport._url
        return url.split("id=")[1] if "id=" in url else None

    async def invoke(self, target, arguments):
        completed = asyncio.get_running_loop().create_future()

        async def complete(message):
            completed.set_result(message)

        await self.client.send(target, arguments, on_invocation=complete)
        message = await completed
        if message.error:
            raise RuntimeError(message.error)
        return message.result

    async def send(self, target, arguments):
        await self.client.send(target, arguments)

    async def stream(self, target, arguments):
        items, ended = [], asyncio.get_running_loop().create_future()

        async def take(item):
            items.append(item)

        async def end(message):
            ended.set_result(message.error)

        await self.client.stream(target, arguments, on_next=take, on_complete=end, on_error=end)
        return items, await ended or None

    async def start_upload(self, name, target):
        upload = self.uploads[name] = ClientStream(self.client._transport, target)
        await upload.invoke()

    async def feed(self, name, item):
        await self.uploads[name].send(item)

    async def complete(self, name):
        await self.uploads.pop(name).complete()

    async def close(self):
        self._end(None)
        open_socket = self.client._transport._ws
        self.task.cancel()
        if open_socket is not None:
            await open_socket.close()


class SignalRCore:
    """signalrcore: threads, negotiates version 0, every call carries an invocation id."""

    def __init__(self, listener, options):
        self.listener = listener
        self.loop = asyncio.get_running_loop()
        encoding = "binary" if options.get("protocol") == "messagepack" else "text"
        settings = {
            "headers": headers_of(options),
            "skip_negotiation": options.get("skipNegotiation", False),
            "transport": HttpTransportType(options.get("transport", "WebSockets")),
        }
        self.hub = (
            HubConnectionBuilder()
            .with_url(options["url"], options=settings)
            .configure_logging(logging.CRITICAL)
            .with_hub_protocol(HubProtocolEncoding[encoding])
            .build()
        )
        self.opened = self.loop.create_future()
        self.calls = {}
        self.uploads = {}
        self.identifiers = map(str, itertools.count())
        for target in [*listener.subscribed, *listener.counted]:
            self.hub.on(target, self._handler(target))
        self.hub.on_open(lambda: self._soon(self.opened.set_result, None))
        self.hub.on_close(lambda: self._soon(self.listener.closed, None))
        self.hub.on_error(lambda message: self._soon(self._complete, message))

    def _soon(self, act, *arguments):
        self.loop.call_soon_threadsafe(act, *arguments)

    def _handler(self, target):
        return lambda arguments: self._soon(self.listener.message, target, arguments)

    def _complete(self, message):
        if call := self.calls.pop(message.invocation_id, None):
            call.set_result(message)

    async def open(self):
        await self.loop.run_in_executor(None, self.hub.start)
        await self.opened
        return None

    async def invoke(self, target, arguments):
        identifier = next(self.identifiers)
        completed = self.calls[identifier] = self.loop.create_future()
        self.hub.invoke(target, arguments, lambda message: self._soon(self._complete, message), identifier)
        message = await completed
        if message.error:
            raise RuntimeError(message.error)
        return message.result

    async def send(self, target, arguments):
        self.hub.send(target, arguments)

    async def stream(self, target, arguments):
        items, ended = [], self.loop.create_future()
        identifier = next(self.identifiers)
        # The library's `stream` sends the request before items can be handled, and drops early items.
        handler = StreamHandler(target, identifier)
        handler.subscribe(
            {
                "next": lambda item: self._soon(items.append, item),
                "complete": lambda message: self._soon(self._complete, message),
                "error": lambda message: self._soon(self._complete, message),
            }
        )
        self.hub.stream_handlers[identifier].append(handler)
        # Errors are passed only to the hub's handler.
        self.calls[identifier] = ended
        self.hub.transport.send(StreamInvocationMessage(identifier, target, arguments, headers=self.hub.headers))
        return items, (await ended).error or None

    async def start_upload(self, name, target):
        self.uploads[name] = Subject()
        self.hub.send(target, self.uploads[name])

    async def feed(self, name, item):
        self.uploads[name].next(item)

    async def complete(self, name):
        self.uploads.pop(name).complete()

    async def close(self):
        # The library's stop joins a thread that waits for the server's next byte.
        self.hub.transport._client.sock.shutdown(socket.SHUT_RDWR)
        await self.loop.run_in_executor(None, self.hub.stop)


OPENERS = {"pysignalr": PySignalR, "signalrcore": SignalRCore}
