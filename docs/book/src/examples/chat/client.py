"""A client of the chat, with pysignalr: see docs/book/src/clients/python.md."""

import asyncio, sys, uuid
from urllib.parse import urlencode

import aiohttp
from pysignalr.client import SignalRClient

PAGE, NAME, ROOM = sys.argv[1:]  # such as http://127.0.0.1:7071 ann kitchen


class Chat:
    last = 0  # number of the last message shown

    async def serve(self):
        """Serves one connection, with a token of its own, until it ends."""
        async with aiohttp.ClientSession() as session, session.post(f"{PAGE}/login", json={"name": NAME}) as response:
            response.raise_for_status()
            login = await response.json()
        headers = {"Authorization": f"Bearer {login['token']}"}
        self.client = SignalRClient(f"{login['hub']}?{urlencode({'room': ROOM})}", headers=headers, retry_count=1)
        self.loading = asyncio.Lock()
        for target, handler in {"Said": self.said, "Present": self.present}.items():
            self.client.on(target, handler)
        self.client.on_open(self.opened)
        await self.client.run()

    async def call(self, method, *arguments):
        """Calls a method, and returns its result."""
        completion = asyncio.get_running_loop().create_future()

        async def completed(message):
            completion.set_result(message)

        # A call that is under way when the connection ends gets no answer, so it needs a time limit.
        await self.client.send(method, list(arguments), completed)
        answer = await asyncio.wait_for(completion, 30)
        if answer.error:
            raise RuntimeError(answer.error)
        return answer.result

    async def opened(self):
        asyncio.create_task(self.catch_up())  # not awaited: the answer is read after this handler
        asyncio.create_task(self.call("Say", ROOM, str(uuid.uuid4()), "hello from Python"))

    async def catch_up(self):
        async with self.loading:
            while missed := await self.call("Since", ROOM, self.last):
                for message in missed:
                    self.show(*message)

    async def said(self, arguments):
        _, number, user, text = arguments
        if number > self.last + 1 and not self.loading.locked():
            asyncio.create_task(self.catch_up())
        self.show(number, user, text)

    def show(self, number, user, text):
        if number == self.last + 1:
            self.last = number
            print(f"{user}: {text}", flush=True)

    async def present(self, arguments):
        print("here:", *arguments[1], flush=True)


async def main():
    chat = Chat()
    while True:
        try:
            await chat.serve()
        except Exception as error:
            print(f"the connection ended: {error!r}", flush=True)
        await asyncio.sleep(2)


asyncio.run(main())
