"""aiosmtplib, with a message of Python's email package that is not folded or encoded for SMTP first."""

import asyncio
import os
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import formataddr

import aiosmtplib

env = os.environ
message = EmailMessage(policy=SMTPUTF8)
message["From"] = formataddr((env["FROM_NAME"], env["FROM"]))
message["To"] = f'{env["TO"]}, {env["ALSO"]}'
message["Cc"] = env["COPY"]
message["Subject"] = env["SUBJECT"]
message["Message-ID"] = "<interop@sender.test>"
message.set_content(open(env["TEXT"], encoding="utf-8").read())
with open(env["ATTACHMENT"], "rb") as file:
    message.add_attachment(file.read(), maintype="application", subtype="octet-stream", filename="picture.bin")
recipients = [env["TO"], env["ALSO"], env["COPY"], env["BLIND"]]
asyncio.run(
    aiosmtplib.send(message, hostname=env["HOST"], port=int(env["PORT"]), start_tls=False, recipients=recipients)
)
