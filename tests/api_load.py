"""Load for the API, as a process of its own: 50 event streams and 200 requests a second, until the streams end.

    python api_load.py PORT TOKEN STREAMS TICKS

Prints one JSON object: the statuses of all requests, and how many streams got every tick from 0 to TICKS.
"""

import http.client
import json
import sys
import threading
import time

PATHS = ("/api/telemetry/current", "/api/nodes", "/metrics", "/api/telemetry/history/coherence")
ASKERS, REQUESTS_PER_S = 4, 200


def main(port, token, streams, ticks):
    """Load the API at `port` until every stream has ended."""
    headers, ids, statuses, done = (
        {"Authorization": f"Bearer {token}"},
        [[] for _ in range(streams)],
        [],
        threading.Event(),
    )
    askers = [threading.Thread(target=ask, args=(port, headers, done, statuses)) for _ in range(ASKERS)]
    readers = [threading.Thread(target=listen, args=(port, headers, ticks + 1, found)) for found in ids]
    for thread in (*readers, *askers):
        thread.start()
    for thread in readers:
        thread.join()
    done.set()
    for thread in askers:
        thread.join()
    whole = sum(found == list(range(ticks + 1)) for found in ids)
    counts = {str(status): statuses.count(status) for status in set(statuses)}
    sys.stdout.write(json.dumps({"statuses": counts, "whole": whole}) + "\n")


def listen(port, headers, count, ids):
    """Take one event stream of `count` events."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", f"/api/telemetry/stream?events={count}", headers=headers)
    for line in connection.getresponse():
        if line.startswith(b"id: "):
            ids.append(int(line[4:]))
    connection.close()


def ask(port, headers, done, statuses):
    """Ask at a steady pace."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    due_s = time.monotonic()
    while not done.wait(max(0.0, due_s - time.monotonic())):
        due_s += ASKERS / REQUESTS_PER_S
        connection.request("GET", PATHS[len(statuses) % len(PATHS)], headers=headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
