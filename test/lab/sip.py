"""As much of SIP, SDP and RTP as it takes to follow one call from outside."""
import ipaddress
import re


def media_kind(payload):
    if len(payload) >= 20 and payload[0] < 4 and payload[4:8] == b"\x21\x12\xa4\x42":
        return "stun"
    if len(payload) >= 12 and payload[0] >> 6 == 2:
        number = payload[1] & 127
        return "rtcp" if 64 <= number <= 95 else "video" if number >= 96 else "audio"
    return "udptl"


def plain(address):
    """One spelling for each address; IPv6 has many."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


class Stream:
    """An m= line and what goes with it."""

    def __init__(self, kind, port, address, direction):
        self.kind, self.port, self.address, self.direction = kind, port, address, direction

    def matches(self, packet):
        """Whether a packet came from here. An SDP with 0.0.0.0 tells only the port."""
        kind = "image" if packet.kind == "udptl" else packet.kind
        address, port = packet.source
        return kind == self.kind and port == self.port and self.address in (address, "0.0.0.0")


def streams(body):
    address, direction, out = "", "sendrecv", []
    for text in body.splitlines():
        letter, _, value = text.partition("=")
        if letter == "m":
            words = value.split()
            out.append(Stream(words[0], int(words[1].split("/")[0]), address, direction))
        elif letter == "c":
            told = plain(value.split()[-1])
            if out:
                out[-1].address = told
            else:
                address = told
        elif letter == "a" and value in ("sendrecv", "sendonly", "recvonly", "inactive"):
            if out:
                out[-1].direction = value
            else:
                direction = value
    return out


class Message:
    """One SIP message on its way between a party and the proxy."""

    @classmethod
    def read(cls, packet, ends):
        text = packet.payload.decode("utf-8", "replace")
        if "\r\n" not in text or len(text) < 10:      # a keep-alive
            return None
        return cls(packet, text, ends)

    def __init__(self, packet, text, ends):
        self.time, self.text = packet.time, text.replace("\r\n", "\n")
        self.sender, self.to = (ends.get(end, "proxy") for end in (packet.source, packet.target))
        head, _, self.body = self.text.partition("\n\n")
        self.first = head.split("\n")[0]
        found = re.search(r"(?mi)^cseq:\s*(.*)$", head)
        self.cseq = found.group(1).strip() if found else ""
        self.sdp = streams(self.body) if self.body.strip() else []

    def accepts_sdp(self):
        return self.first.startswith("SIP/2.0 2") and self.cseq.split()[-1] in ("INVITE", "UPDATE")

    def hangs_up(self):
        return self.first.startswith("BYE ") or self.first.startswith("CANCEL ") and self.sender == "uac"

    def ladder(self):
        sdp = "".join("  [%s %s:%d %s]" % (s.kind, s.address, s.port, s.direction) for s in self.sdp)
        return "%8.3f  %-5s > %-5s  %-45s CSeq %s%s" % (self.time, self.sender, self.to, self.first[:45], self.cseq, sdp)


def foundation(address):
    """How the module of the proxy names the relay's candidates: R and the IPv4 address as
    a little-endian number. It has no such number for IPv6 and writes 0."""
    parsed = ipaddress.ip_address(address)
    return "R%x" % (int.from_bytes(parsed.packed, "little") if parsed.version == 4 else 0)


def relay_candidates(body):
    """What is wrong with the relay's candidates: they come first, for RTP and RTCP, name
    the address and the ports of the m= line, and rank below everything else."""
    lines = [text[len("a=candidate:"):].split() for text in body.splitlines() if text.startswith("a=candidate:")]
    if len(lines) < 4:
        return ["%d candidates, wanted two of the relay before two of the phone" % len(lines)]
    stream, wrong = streams(body)[0], []
    for component, words in enumerate(lines[:2], start=1):
        want = [foundation(stream.address), str(component), "UDP", str(16777216 - component),
                stream.address, str(stream.port + component - 1), "typ", "relay"]
        got = words[:4] + [plain(words[4])] + words[5:8]
        if got != want:
            wrong.append("candidate is %s, wanted %s" % (" ".join(got), " ".join(want)))
    return wrong
