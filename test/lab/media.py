#!/usr/bin/env python3
"""Makes what the phones play: audio.pcma and audio.pcmu (two seconds of G.711 tone),
video.pcap (RTP with payload type 96) and udptl.pcap (what a fax sends). The bytes are
the same every time; each packet differs from the others, so that one can be told from
another where it arrives.

    media.py FOLDER"""
import math
import os
import struct
import sys

RATE = 8000


def segment(sample):
    """Sign, exponent and the magnitude of a 16 bit sample for the two G.711 laws."""
    return sample < 0, min(abs(sample), 32635)


def mu_law(sample):
    negative, magnitude = segment(sample)
    magnitude += 132
    exponent = magnitude.bit_length() - 8
    mantissa = magnitude >> (exponent + 3) & 15
    return 255 - ((128 if negative else 0) + 16 * exponent + mantissa)


def a_law(sample):
    negative, magnitude = segment(sample)
    exponent = max(magnitude.bit_length() - 8, 0)
    mantissa = magnitude >> (exponent + 3 if exponent else 4) & 15
    return ((0 if negative else 128) + 16 * exponent + mantissa) ^ 85


def tone(hertz, law, seconds=2):
    return bytes(law(round(12000 * math.sin(2 * math.pi * hertz * n / RATE))) for n in range(seconds * RATE))


def udp_frame(payload):
    """An Ethernet frame; sipp takes the payload and the timing, and writes its own addresses."""
    udp = struct.pack(">4H", 4000, 4002, 8 + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + bytes((127, 0, 0, 1)) * 2
    return bytes(12) + b"\x08\x00" + ip + udp


def write_pcap(path, payloads, milliseconds):
    with open(path, "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for n, payload in enumerate(payloads):
            frame, micro = udp_frame(payload), n * milliseconds * 1000
            out.write(struct.pack("<4I", micro // 1000000, micro % 1000000, len(frame), len(frame)) + frame)


def video(count):
    for n in range(count):
        marker = 128 if n % 3 == 2 else 0       # three packets make a picture
        yield struct.pack(">BBHII", 128, 96 | marker, n + 1, n // 3 * 3000, 0x1AB0001) + bytes((n + i) % 256 for i in range(400))


def udptl(count):
    for n in range(count):
        primary = b"\xc0\x01\x80\x00" + bytes((7 * n + i) % 256 for i in range(30))
        yield struct.pack(">HB", n, len(primary)) + primary + b"\x00\x00"


def main(folder):
    os.makedirs(folder, exist_ok=True)
    for name, data in (("audio.pcma", tone(440, a_law)), ("audio.pcmu", tone(620, mu_law))):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(data)
    write_pcap(os.path.join(folder, "video.pcap"), video(60), 20)
    write_pcap(os.path.join(folder, "udptl.pcap"), udptl(40), 30)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
