"""Python's smtplib and email, the way its documentation does it."""

import os
import smtplib
import ssl
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
kind, more = smtplib.SMTP, {}
if env.get("TLS") == "implicit":
    kind, more = smtplib.SMTP_SSL, {"context": ssl.create_default_context(cafile=env["CA"])}
with kind(env["HOST"], int(env["PORT"]), **more) as smtp:
    if env.get("TLS") == "starttls":
        smtp.starttls(context=ssl.create_default_context(cafile=env["CA"]))
    if "LOGIN" in env:
        smtp.login(env["LOGIN"], env["PASSWORD"])
    smtp.send_message(message)
