"""Python's smtplib and email, the way its documentation does it."""

import os
import smtplib
from email.message import EmailMessage
from email.utils import formataddr

env = os.environ
message = EmailMessage()
message["From"] = formataddr((env["FROM_NAME"], env["FROM"]))
message["To"] = [env["TO"], env["ALSO"]]
message["Cc"] = env["COPY"]
message["Bcc"] = env["BLIND"]
message["Subject"] = env["SUBJECT"]
message["Message-ID"] = "<interop@sender.test>"
message.set_content(open(env["TEXT"], encoding="utf-8").read())
with open(env["ATTACHMENT"], "rb") as file:
    message.add_attachment(file.read(), maintype="application", subtype="octet-stream", filename="picture.bin")
with smtplib.SMTP(env["HOST"], int(env["PORT"])) as smtp:
    smtp.send_message(message)
