"""What has to reach the parties in each scenario: (party, kind, phase, at least, at most).

Phase 0 lasts until the first 2xx to an INVITE or UPDATE reaches its sender, phase n starts
with the nth. The phones send 50 audio packets a second; the numbers leave room for a slow
machine, not for a lost second."""

ANY = 10 ** 9
# While on hold a few packets that were under way may still arrive: a quarter of a second.
NEARLY_NONE = 12
WHO = ("uac", "uas")


def each(kind, phase, least, most=ANY):
    return [(who, kind, phase, least, most) for who in WHO]


HELD = each("audio", 1, 20) + each("audio", 2, 0, NEARLY_NONE) + each("audio", 3, 20)

WANTED = {
    "add-video": each("audio", 1, 20) + each("audio", 2, 20) + each("video", 2, 30),
    "audio": each("audio", 1, 30),
    "audio-video": each("audio", 1, 30) + each("video", 1, 30),
    "busy": [],
    "bye-callee": each("audio", 1, 30),
    "cancel": [],
    "cancel-early": [("uac", "audio", 0, 20, ANY)],
    "early-answer": each("audio", 0, 20) + each("audio", 1, 20),
    "early-media": each("audio", 0, 20) + each("audio", 1, 20),
    "end-dialog": each("audio", 1, 20),
    "fork": each("audio", 1, 30),
    "hold-resume": HELD,
    "hold-zero": HELD,
    "ice": each("audio", 1, 30),
    "late-offer": each("audio", 1, 30),
    "media-timeout": each("audio", 1, 20),
    "reinvite-callee": each("audio", 1, 20) + each("audio", 2, 20),
    "t38": each("audio", 1, 20) + each("udptl", 2, 20),
    "update-hold": HELD,
    "video-rejected": each("audio", 1, 30) + each("video", 1, 0, 0),
}

# Scenarios whose SDP must show the relay as ICE candidates.
RELAY_CANDIDATES = ("ice",)
