"""Django's EmailMessage, with the settings that its documentation names."""

import os

from django.conf import settings
from django.core.mail import EmailMessage

env = os.environ
settings.configure(EMAIL_HOST=env["HOST"], EMAIL_PORT=int(env["PORT"]), DEFAULT_CHARSET="utf-8")
message = EmailMessage(
    env["SUBJECT"],
    open(env["TEXT"], encoding="utf-8").read(),
    f'{env["FROM_NAME"]} <{env["FROM"]}>',
    [env["TO"], env["ALSO"]],
    bcc=[env["BLIND"]],
    cc=[env["COPY"]],
)
with open(env["ATTACHMENT"], "rb") as file:
    message.attach("picture.bin", file.read(), "application/octet-stream")
message.send()
