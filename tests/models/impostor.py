"""Not a model but a worker, and not a good one: greets wrongly, as its argument says.

"token", "odd-token", "protocol" are wrong in its HELLO; "nothing" sends none, "half" a part of one, and ends; "hangs-up"
greets and closes the link; "result" answers LOAD with a result, "warnings" with a field that is malformed; "sizes" says
that it has a batch function, and answers with sizes that are none; "flood" answers a call with items, whether there is
room for them or not.
"""
import json
import os
import socket
import struct
import sys
import time

kind = sys.argv[1]
link = socket.fromfd(int(os.environ["MODELHOST_LINK"][3:]), socket.AF_UNIX, socket.SOCK_STREAM)
os.close(int(os.environ["MODELHOST_LINK"][3:]))


def send(header):
    text = json.dumps(header).encode()
    link.sendall(struct.pack("<IQ", len(text), 0) + text)


def receive():
    head, body = struct.unpack("<IQ", link.recv(12, socket.MSG_WAITALL))
    link.recv(head + body, socket.MSG_WAITALL)


hello = {"type": "hello", "protocol": 1, "token": os.environ["MODELHOST_LINK_TOKEN"], "version": "0"}
if kind == "token":
    send(dict(hello, token="guessed"))
elif kind == "odd-token":
    send(dict(hello, token=u"\u00e9"))
elif kind == "protocol":
    send(dict(hello, protocol=2))
elif kind == "half":
    link.sendall(b"\x10\0")
    sys.exit(5)
elif kind == "hangs-up":
    send(hello)
    link.close()
elif kind in ("result", "warnings"):
    send(hello)
    receive()  # WELCOME
    receive()  # LOAD
    send({"type": "result", "id": 1} if kind == "result" else {"type": "loaded", "warnings": None, "id": 1})
elif kind == "sizes":
    send(hello)
    receive()  # WELCOME
    receive()  # LOAD
    send({"type": "loaded", "batch": True, "id": 1})
    for number in range(2, 100):
        receive()
        send({"type": "result", "id": number, "sizes": [1, 2], "failed": [[]]})
elif kind == "flood":
    send(dict(hello, features=["stream", "more"]))
    receive()
    receive()
    send({"type": "loaded", "id": 1})
    receive()  # CALL
    for number in range(10000):
        send({"type": "item", "id": 2, "seq": number})
time.sleep(600)
