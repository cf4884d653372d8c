"""A token endpoint over HTTPS, and what tells a server whether a token is one of its own.

The first token that it gives out is none: a client has to ask for another when the server refuses it.
"""

import json
import os
import secrets
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

# What holds outlives the program, as it does elsewhere.
GIVEN = os.path.join(os.environ["WORK"], "tokens")


def given():
    """All tokens so far."""
    if not os.path.exists(GIVEN):
        return []
    with open(GIVEN) as file:
        return file.read().split()


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        text = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = {key: values[0] for key, values in parse_qs(text).items()}
        status, answer = self.answer(form)
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer(self, form):
        if self.path == "/introspect":
            if form.get("token") not in given()[1:]:
                return 200, {"active": False}
            return 200, {"active": True, "username": "app@server.test", "scope": "smtp"}
        expected = {
            "grant_type": "client_credentials",
            "client_id": "mailweir",
            "client_secret": "a secret",
            "scope": "smtp",
        }
        if self.path != "/token" or form != expected:
            return 400, {"error": "invalid_client", "error_description": "that is not the client"}
        # As long as those of Microsoft.
        token = secrets.token_urlsafe(1500)
        with open(GIVEN, "a") as file:
            file.write(token + "\n")
        return 200, {"token_type": "Bearer", "expires_in": 3599, "access_token": token}

    def log_message(self, form, *arguments):
        print(form % arguments, flush=True)


def listen(address):
    host, port = address.rsplit(":", 1)
    return ThreadingHTTPServer((host, int(port)), Endpoint)


tokens, introspection = listen(os.environ["TOKENS"]), listen(os.environ["INTROSPECTION"])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.environ["TOKENS_CERTIFICATE"], os.environ["TOKENS_KEY"])
tokens.socket = context.wrap_socket(tokens.socket, server_side=True)
threading.Thread(target=introspection.serve_forever, daemon=True).start()
tokens.serve_forever()
