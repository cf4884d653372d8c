"""Reads a message on standard input with Python's email package and prints what it sees as JSON."""

import email
import email.policy
import json
import sys


def fields(message):
    return {name.lower(): str(value) for name, value in message.items()}


def describe(part):
    result = {"type": part.get_content_type(), "headers": fields(part)}
    if part.get_content_type() == "message/delivery-status":
        result["blocks"] = [fields(block) for block in part.get_payload()]
    elif part.get_content_maintype() == "message":
        result["text"] = part.get_payload(0).as_string()
    else:
        result["text"] = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")
    return result


message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.compat32)
parts = message.get_payload() if message.is_multipart() else [message]
json.dump(
    {
        "type": message.get_content_type(),
        "report_type": message.get_param("report-type"),
        "headers": fields(message),
        "defects": [repr(d) for p in message.walk() for d in p.defects],
        "parts": [describe(p) for p in parts],
    },
    sys.stdout,
)
