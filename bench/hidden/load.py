"""Mail for the relays: senders whose parts fall as 1, 1/2, 1/3, …, and recipients of their own."""

import random
import socket
import time

AGAIN = 16  # one message of so many is for somebody who had one before
DOMAIN = "hidden.test"


def message(number, senders, seed, sized):
    """Sender, recipient and data of one, the same in every run. As in `mailweir simulate`."""
    weights = [1 / n for n in range(1, senders + 1)]
    sender = random.Random(seed * 1_000_003 + number).choices(range(1, senders + 1), weights)[0]
    turn = number // AGAIN
    to = AGAIN * (turn // 2) + turn % (AGAIN - 1) if number % AGAIN == AGAIN - 1 else number
    size = 2000 + ((number * 2_654_435_761 & 0xFFFFFFFF) >> 17) if sized else 70
    body = "x" * 70 + "\r\n"
    head = f"Subject: {number}\r\nMessage-ID: <{number}.{seed}@sender{sender}.example>\r\n\r\n"
    return f"app{sender}@sender{sender}.example", f"user{to}@{DOMAIN}", f"{head}{body * max(1, size // 72)}.\r\n".encode()


def load(port, numbers, pace, case, stop, failed):
    """A session that hands over the messages with these numbers at a pace, or as fast as they are taken."""
    try:
        with socket.create_connection(("127.0.0.1", port), 60) as stream:
            answers = stream.makefile("rb")

            def answer(code):
                lines = []
                while True:
                    line = answers.readline()
                    if not line.startswith(code):
                        raise RuntimeError(f"the relay said {line!r}")
                    lines.append(line[4:].strip())
                    if line[3:4] != b"-":
                        return lines

            answer(b"220")
            stream.sendall(b"EHLO app.test\r\n")
            # Reports about what failed would go to the same receiver, and count there.
            never = " NOTIFY=NEVER" if b"DSN" in answer(b"250") else ""
            began = time.monotonic()
            for sent, number in enumerate(numbers):
                if stop.is_set():
                    return
                time.sleep(max(0.0, began + sent / pace - time.monotonic()))
                sender, recipient, data = message(number, case.senders, case.seed, case.sized)
                stream.sendall(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>{never}\r\nDATA\r\n".encode())
                for code in (b"250", b"250", b"354"):
                    answer(code)
                stream.sendall(data)
                answer(b"250")
            stream.sendall(b"QUIT\r\n")
    except (OSError, RuntimeError) as error:
        if not stop.is_set():
            failed.append(error)
