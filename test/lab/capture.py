"""What the kernel delivers on the interfaces of the parties, without asking any program.

A capture sees the UDP packets from and to the ports it was told, of one address family,
on one interface, which may be in another network namespace."""
import ctypes
import os
import socket
import struct

ETH_P_ALL = 3
ETH_P = {4: 0x0800, 6: 0x86DD}
PACKET_HOST, PACKET_OUTGOING = 0, 4
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
CLONE_NEWNET = 0x40000000

# classic BPF
LOAD_BYTE, AND, LOAD_X_HEADER, LOAD_X = 0x30, 0x54, 0xB1, 0x01
LOAD_HALF_AT_X, JUMP_EQUAL, RETURN = 0x48, 0x15, 0x06


def program(family, ports):
    """BPF that accepts UDP with one of the ports as source or destination."""
    first, protocol, length = {4: (0x40, 9, None), 6: (0x60, 6, 40)}[family]
    code = [(LOAD_BYTE, None, 0), (AND, None, 0xF0), (JUMP_EQUAL, ("next", "drop"), first),
            (LOAD_BYTE, None, protocol), (JUMP_EQUAL, ("next", "drop"), socket.IPPROTO_UDP),
            (LOAD_X_HEADER, None, 0) if length is None else (LOAD_X, None, length)]
    for offset in (0, 2):
        code.append((LOAD_HALF_AT_X, None, offset))
        code += [(JUMP_EQUAL, ("accept", "next"), port) for port in sorted(ports)]
    drop, accept = len(code), len(code) + 1
    code += [(RETURN, None, 0), (RETURN, None, 0xFFFF)]
    out = []
    for n, (op, jumps, k) in enumerate(code):
        to = {"next": 0, "drop": drop - n - 1, "accept": accept - n - 1}
        true, false = (to[j] for j in jumps) if jumps else (0, 0)
        out.append(struct.pack("HBBI", op, true, false, k))
    return b"".join(out)


class namespace:
    """with namespace(name): sockets made inside belong to it. No name: where we are."""

    def __init__(self, name):
        self.name = name

    def enter(self, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path)
        finally:
            os.close(fd)

    def __enter__(self):
        if self.name:
            self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
            self.enter("/run/netns/" + self.name)

    def __exit__(self, *_):
        if self.name:
            self.enter("/proc/self/fd/%d" % self.home)
            os.close(self.home)


class Packet:
    """One UDP packet: times in seconds, endpoints as (address text, port)."""

    def __init__(self, time, data, family, outgoing):
        self.time, self.outgoing = time, outgoing
        if family == 4:
            head, addresses, af = (data[0] & 15) * 4, (data[12:16], data[16:20]), socket.AF_INET
        else:
            head, addresses, af = 40, (data[8:24], data[24:40]), socket.AF_INET6
        ports = struct.unpack(">HH", data[head:head + 4])
        size = struct.unpack(">H", data[head + 4:head + 6])[0]
        self.source, self.target = ((socket.inet_ntop(af, a), p) for a, p in zip(addresses, ports))
        self.payload = data[head + 8:head + size]


class Capture:
    def __init__(self, family, interface, netns, ports):
        self.family, self.loopback = family, interface == "lo"
        with namespace(netns):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            # opened here, so that it stays the table of this namespace
            self.table = open("/proc/thread-self/net/udp" + ("6" if family == 6 else ""), "rb", buffering=0)
            code = program(family, ports)
            keep = ctypes.create_string_buffer(code)
            self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                                 struct.pack("HP", len(code) // 8, ctypes.addressof(keep)))
            self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 25)
            self.sock.bind((interface, ETH_P_ALL))
        self.sock.setblocking(False)

    def read(self, now):
        """The packets that wait. On loopback each one passes twice; once is enough."""
        while True:
            try:
                data, (_, protocol, kind, _, _) = self.sock.recvfrom(65536)
            except BlockingIOError:
                return
            if protocol != ETH_P[self.family] or kind not in (PACKET_HOST, PACKET_OUTGOING):
                continue
            if kind == PACKET_OUTGOING and self.loopback:
                continue
            yield Packet(now, data, self.family, kind == PACKET_OUTGOING)

    def waiting(self):
        """Bytes that wait in each UDP socket of this namespace: (port, bytes)."""
        self.table.seek(0)
        text = b""
        while chunk := self.table.read(65536):
            text += chunk
        for line in text.decode().split("\n")[1:]:
            words = line.split()
            if words:
                yield int(words[1].rsplit(":", 1)[1], 16), int(words[4].split(":")[1], 16)
