#!/usr/bin/env python3
"""Listens at the parties of one call and judges it when told to stop (SIGTERM).

    meter.py SCENARIO --out FOLDER --party uac=ADDRESS,SIP,MEDIA,INTERFACE[,NAMESPACE] --party uas=...

A party's audio port is MEDIA, its video port is two above. A media packet counts for the
party it reached when it came from the address and port that the latest SDP told this party,
and when the other party sent the same bytes. How many have to arrive in which part of the
call stands in `wanted`. A packet that goes from party to party directly is a failure, and so
is one from any other address, and one with bytes that nobody sent.

Writes media.json, ladder.txt and sip.txt into the folder; the last line it prints is the verdict."""
import argparse
import json
import os
import select
import signal
import sys
import time
import zlib

from capture import Capture
from sip import Message, media_kind, relay_candidates
from wanted import NEARLY_NONE, RELAY_CANDIDATES, WANTED

JUDGED = ("uac", "uas")
# Packets under way while a new SDP arrives still match the old one.
OVERLAP = 0.3
# Media may overtake the answer that announces it: who made an offer has to be ready for
# it at once (RFC 3264 section 5.1), and the answer takes the longer way.
OVERTAKE = 0.3


class Party:
    def __init__(self, text):
        self.name, _, rest = text.partition("=")
        self.address, sip, media, self.interface, *more = rest.split(",")
        self.sip, self.media = int(sip), int(media)
        self.namespace = more[0] if more else None
        self.family = 6 if ":" in self.address else 4

    def media_ends(self):
        return {(self.address, self.media), (self.address, self.media + 2)}


class Media:
    """One media packet as a party sent it or got it."""

    def __init__(self, packet, kind):
        self.time, self.source, self.target, self.kind = packet.time, packet.source, packet.target, kind
        self.mark = (kind, zlib.crc32(packet.payload))


class Meter:
    def __init__(self, scenario, parties):
        self.scenario = scenario
        self.parties = {p.name: p for p in parties}
        self.sip_ends = {(p.address, p.sip): p.name for p in parties}
        self.media_ends = {end: p.name for p in parties for end in p.media_ends()}
        ports = {port for _, port in list(self.sip_ends) + list(self.media_ends)}
        places = {(p.family, p.interface, p.namespace) for p in parties}
        self.captures = [Capture(*place, ports) for place in sorted(places, key=str)]
        self.messages, self.sent, self.received = [], [], []
        self.direct = 0
        self.waited = set()       # media ports in whose socket something was seen waiting
        self.stall = 0.0          # longest time for which this process did not get a processor
        self.stop = False

    def run(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "stop", True))
        start, looked = time.monotonic(), 0.0
        turn = start
        sockets = {c.sock: c for c in self.captures}
        while not self.stop:
            ready = select.select(list(sockets), [], [], 0.1)[0]
            turn, last = time.monotonic(), turn
            self.stall = max(self.stall, turn - last - 0.1)
            for sock in ready:
                for packet in sockets[sock].read(time.monotonic() - start):
                    self.packet(packet)
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                for capture in self.captures:
                    self.waited |= {port for port, size in capture.waiting() if size}
        self.stall = max(self.stall, time.monotonic() - turn - 0.1)
        for capture in self.captures:     # what came with the signal
            for packet in capture.read(time.monotonic() - start):
                self.packet(packet)

    def packet(self, p):
        if p.source in self.sip_ends or p.target in self.sip_ends:
            message = Message.read(p, self.sip_ends)
            if message:
                self.messages.append(message)
            return
        kind = media_kind(p.payload)
        if kind in ("rtcp", "stun"):      # passes, but is not what is counted here
            return
        m = Media(p, kind)
        sender, receiver = self.media_ends.get(p.source), self.media_ends.get(p.target)
        if sender and receiver:
            self.direct += 1
        if sender:
            self.sent.append(m)
        if receiver and not p.outgoing:
            self.received.append(m)

    # --- the verdict

    def phases(self):
        """Times at which a new part of the call starts: each first 2xx to an INVITE or
        UPDATE that reaches the party that asked."""
        times, seen = [], set()
        for m in self.messages:
            if m.to in JUDGED and m.accepts_sdp() and (m.to, m.cseq) not in seen:
                seen.add((m.to, m.cseq))
                times.append(m.time)
        return times

    def end(self):
        """From here on the relay may stop: somebody hangs up or gives up."""
        return min((m.time for m in self.messages if m.hangs_up()), default=1e9)

    def was_told(self, who, packet):
        told = [m for m in self.messages if m.to == who and m.sdp]
        for n, m in enumerate(told):
            until = told[n + 1].time + OVERLAP if n + 1 < len(told) else 1e9
            if m.time - OVERTAKE <= packet.time <= until and any(s.matches(packet) for s in m.sdp):
                return True
        return False

    def judge(self):
        phases, end = self.phases(), self.end()
        sent = {w: {} for w in JUDGED}
        for m in self.sent:
            who = self.media_ends[m.source]
            if who in sent:
                sent[who].setdefault(m.mark, m.time)
        counts, arrived, flows = {}, {w: set() for w in JUDGED}, {}
        wrong = altered = 0
        for m in self.received:
            who = self.media_ends[m.target]
            flow = "%s:%d > %s:%d %s" % (*m.source, who, m.target[1], m.kind)
            flows[flow] = flows.get(flow, 0) + 1
            if who not in JUDGED or m.source in self.media_ends:
                continue
            if not self.was_told(who, m):
                wrong += 1
            elif m.mark not in sent[other(who)]:
                altered += 1
            elif m.mark not in arrived[who]:
                arrived[who].add(m.mark)
                key = (who, m.kind, sum(t <= m.time for t in phases))
                counts[key] = counts.get(key, 0) + 1
        in_time = {w: {mark for mark, t in sent[w].items() if t < end} for w in JUDGED}
        problems = self.shortfalls(counts) + self.candidates()
        for number, text in ((self.direct, "went past the relay"), (wrong, "came from an address no SDP told"),
                             (altered, "arrived with bytes that the other party had not sent")):
            if number:
                problems.append("%d packets %s" % (number, text))
        return {"scenario": self.scenario, "problems": problems, "flows": flows,
                "received": {w: len(arrived[w] & in_time[other(w)]) for w in JUDGED},
                "sent": {w: len(in_time[w]) for w in JUDGED},
                "direct": self.direct, "wrong_source": wrong, "altered": altered, "stall_ms": round(1000 * self.stall),
                "phases": {"%s %s phase %d" % k: n for k, n in sorted(counts.items())}}

    def shortfalls(self, counts):
        out = []
        for who, kind, phase, least, most in WANTED[self.scenario]:
            n = counts.get((who, kind, phase), 0)
            if not least <= n <= most:
                bound = "wanted %d" % least if n < least else "at most %d" % most
                out.append("%s got %d %s packets in phase %d, %s" % (who, n, kind, phase, bound))
            # the capture sees what arrives at the interface; this, that a socket took it
            if most > NEARLY_NONE and self.parties[who].media not in self.waited:
                out.append("nothing ever waited in the media socket of " + who)
        return out

    def candidates(self):
        """With ICE each party must be shown the relay as its first candidates."""
        if self.scenario not in RELAY_CANDIDATES:
            return []
        out = []
        for who in JUDGED:
            bodies = [m.body for m in self.messages if m.to == who and m.sdp]
            for why in [w for b in bodies for w in relay_candidates(b)] or ([] if bodies else ["no SDP"]):
                out.append("%s: %s" % (who, why))
        return out

    def ladder(self):
        return "".join(m.ladder() + "\n" for m in self.messages)


def other(who):
    return "uas" if who == "uac" else "uac"


def line(r):
    ports = sorted({int(f.split(" > ")[0].rsplit(":", 1)[1]) for f in r["flows"]})
    return "media=%s uac_rx=%d/%d uas_rx=%d/%d relay_ports=%s direct=%d wrong_source=%d altered=%d stall_ms=%d" % (
        "FAILED" if r["problems"] else "ok", r["received"]["uac"], r["sent"]["uas"],
        r["received"]["uas"], r["sent"]["uac"], ",".join(map(str, ports)) or "-",
        r["direct"], r["wrong_source"], r["altered"], r["stall_ms"])


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("scenario", choices=sorted(WANTED))
    p.add_argument("--party", action="append", required=True, type=Party)
    p.add_argument("--ready", help="file to make when the captures run")
    p.add_argument("--out", required=True, help="folder for the reports")
    args = p.parse_args()
    meter = Meter(args.scenario, args.party)
    if args.ready:
        open(args.ready, "w").close()
    meter.run()
    verdict = meter.judge()
    with open(os.path.join(args.out, "media.json"), "w") as f:
        json.dump(verdict, f, indent=1)
    with open(os.path.join(args.out, "ladder.txt"), "w") as f:
        f.write(meter.ladder())
    with open(os.path.join(args.out, "sip.txt"), "w") as f:
        for m in meter.messages:
            f.write("# %.3f %s > %s\n%s\n" % (m.time, m.sender, m.to, m.text))
    for problem in verdict["problems"]:
        print("problem: " + problem)
    print(line(verdict))
    return 1 if verdict["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
