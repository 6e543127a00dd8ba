#!/usr/bin/env python3
"""One JSON-RPC call over Kamailio's datagram socket.

    jsonrpc.py SOCKET METHOD [JSON...]     prints the answer
    jsonrpc.py SOCKET --end-all            ends every dialog"""
import json
import os
import socket
import sys
import tempfile


def call(path, method, params):
    """Kamailio answers to the address a request came from, so this end needs one, too."""
    request = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(os.path.join(folder, "answers"))
        sock.settimeout(2)
        sock.sendto(request.encode(), path)
        return json.loads(sock.recv(65536))


def end_all(path):
    dialogs = call(path, "dlg.list", [])["result"]
    answers = [call(path, "dlg.end_dlg", [d["h_entry"], d["h_id"]]) for d in dialogs]
    print(json.dumps(answers))
    return bool(answers) and all("error" not in a for a in answers)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path, method = sys.argv[1:3]
    if method == "--end-all":
        return 0 if end_all(path) else 1
    answer = call(path, method, [json.loads(p) for p in sys.argv[3:]])
    print(json.dumps(answer))
    return 0 if "result" in answer else 1


if __name__ == "__main__":
    sys.exit(main())
