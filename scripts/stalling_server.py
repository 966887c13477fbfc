#!/usr/bin/env python3
"""Usage: stalling_server.py PORT

An echo server in one thread that answers nobody for 100 ms in every second, for
scripts/coordinated-omission.
"""
import selectors
import socket
import sys
import time

PERIOD, STALL = 1.0, 0.1  # seconds
RECEIVE_BUFFER = 1 << 16  # bytes: what a stalled server's socket takes is not what is shown


def main(port):
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    loop = selectors.DefaultSelector()
    loop.register(listener, selectors.EVENT_READ)
    due = time.monotonic() + PERIOD
    while True:
        if time.monotonic() >= due:
            time.sleep(max(0, due + STALL - time.monotonic()))
            due += PERIOD
        for key, _ in loop.select(max(0, due - time.monotonic())):
            if key.fileobj is listener:
                peer = listener.accept()[0]
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                loop.register(peer, selectors.EVENT_READ)
                continue
            data = key.fileobj.recv(1 << 16)
            if data:
                key.fileobj.sendall(data)
            else:
                loop.unregister(key.fileobj)
                key.fileobj.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__.split("\n", 1)[0], file=sys.stderr)
        sys.exit(2)
    main(int(sys.argv[1]))
