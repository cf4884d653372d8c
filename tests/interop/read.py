"""Reads a message on standard input as a mail program would, and prints what a person sees as JSON."""

import email
import email.policy
import hashlib
import json
import sys

TRACE = ("received", "return-path", "delivered-to", "x-original-to", "envelope-to")

raw = sys.stdin.buffer.read()
message = email.message_from_bytes(raw, policy=email.policy.default)
text = message.get_body(preferencelist=("plain",))
content = text.get_payload(decode=True) if text is not None else b""
json.dump(
    {
        "subject": str(message["Subject"] or ""),
        "from": str(message["From"] or ""),
        "to": str(message["To"] or ""),
        # What servers note about a message's way may name its own recipient.
        "fields": "\n".join(f"{name}: {value}" for name, value in message.items() if name.lower() not in TRACE),
        "text": (content or b"").decode(text.get_content_charset("utf-8") if text else "utf-8", "replace"),
        "attachments": [
            {"name": part.get_filename(), "sha256": hashlib.sha256(part.get_payload(decode=True) or b"").hexdigest()}
            for part in message.iter_attachments()
        ],
        "report": next(
            (part.as_string() for part in message.walk() if part.get_content_type() == "message/delivery-status"), ""
        ),
    },
    sys.stdout,
)
