#!/usr/bin/env python3
"""A dispatcher and relay of a few lines that can misbehave, to show that the lab notices.

    standin.py --socket PATH --address ADDRESS --ports LOW-HIGH [--fault FAULT]

Faults: mute (relays nothing), error (refuses every command), silent (answers nothing),
alter (changes a byte of the media), other-port (sends from a port it did not tell).
It knows nothing of hold, time-outs or security; it is no model for the real thing."""
import argparse
import os
import selectors
import signal
import socket
import sys

FAULTS = ("none", "mute", "error", "silent", "alter", "other-port")


class Leg:
    """The relay's socket towards one party of one stream."""

    def __init__(self, relay):
        self.relay, self.peer, self.other = relay, None, None
        self.sock = relay.socket()
        self.port = self.sock.getsockname()[1]
        relay.selector.register(self.sock, selectors.EVENT_READ, self.readable)

    def readable(self):
        data, source = self.sock.recvfrom(65536)
        self.peer = source[:2]
        fault, to = self.relay.fault, self.other
        if fault == "mute" or not to.peer:
            return
        if fault == "alter":
            data = data[:-1] + bytes((data[-1] ^ 1,))
        (self.relay.stray if fault == "other-port" else to.sock).sendto(data, to.peer)


class Relay:
    def __init__(self, args):
        self.fault, self.address = args.fault, args.address
        self.family = socket.AF_INET6 if ":" in args.address else socket.AF_INET
        low, high = map(int, args.ports.split("-"))
        self.ports = iter(range(low, high - 1, 2))
        self.selector = selectors.DefaultSelector()
        self.stray = self.socket()
        self.calls = {}        # Call-ID: list of (kind, caller's leg, callee's leg)
        self.offerer = {}      # Call-ID: the tag that spoke first
        self.path, self.stop = args.socket, False
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    def socket(self):
        for port in self.ports:
            sock = socket.socket(self.family, socket.SOCK_DGRAM)
            try:
                sock.bind((self.address, port))
                return sock
            except OSError:
                sock.close()
        sys.exit("standin: no free port")

    def accept(self):
        connection = self.listener.accept()[0]
        buffer = bytearray()

        def readable():
            data = connection.recv(65536)
            if not data:
                self.selector.unregister(connection)
                connection.close()
                return
            buffer.extend(data)
            while (end := buffer.find(b"\r\n\r\n")) >= 0:
                lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
                del buffer[:end + 4]
                answer = self.command(lines[0], dict(line.split(": ", 1) for line in lines[1:]))
                if self.fault != "silent":
                    connection.send((answer + "\r\n").encode())

        self.selector.register(connection, selectors.EVENT_READ, readable)

    def command(self, name, head):
        if self.fault == "error":
            return "error"
        call = head["call_id"]
        if name == "remove":
            return "removed" if self.calls.pop(call, None) else "error"
        # a reply belongs to the owner of the To tag, who answers
        speaker = head["from_tag"] if head["type"] == "request" else head.get("to_tag", "")
        first = self.offerer.setdefault(call, head["from_tag"])
        side = 0 if speaker == first else 1
        legs, ports = self.calls.setdefault(call, []), []
        for n, text in enumerate(filter(None, head.get("media", "").split(","))):
            kind, rest = text.split(":", 1)
            address, port, _, _ = rest.rsplit(":", 3)
            if n == len(legs) or legs[n][0] != kind:
                pair = Leg(self), Leg(self)
                pair[0].other, pair[1].other = pair[1], pair[0]
                legs[n:n + 1] = [(kind, *pair)]
            if address != "0.0.0.0" and port != "0":
                legs[n][1 + side].peer = address, int(port)
            ports.append(str(legs[n][2 - side].port))
        return " ".join([self.address] + ports)

    def run(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stop", True))
        while not self.stop:
            for key, _ in self.selector.select(0.1):
                key.data()
        os.unlink(self.path)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--socket", required=True)
    p.add_argument("--address", required=True)
    p.add_argument("--ports", required=True)
    p.add_argument("--fault", choices=FAULTS, default="none")
    Relay(p.parse_args()).run()


if __name__ == "__main__":
    main()
