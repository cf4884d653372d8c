"""aiosmtpd with a handler that keeps messages in files."""

import asyncio
import os
import itertools

from aiosmtpd.smtp import SMTP

numbers = itertools.count()


class Keeper:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 5.1.1 no such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        with open(os.path.join(os.environ["MAIL"], f"message.{next(numbers)}"), "wb") as file:
            file.write(envelope.content)
        return "250 OK"


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Keeper(), enable_SMTPUTF8=True, hostname="server.test"), os.environ["HOST"], int(os.environ["PORT"])
    )
    await server.serve_forever()


asyncio.run(main())
