"""A daemon that is none: whatever the HTTP API asks for, with answers that a test can set."""

import threading
from pathlib import Path
from types import SimpleNamespace

from controller.port import BusyError, Commanded
from metrics.export_snapshot import Durations, ExportSnapshot
from metrics.kpi import CATALOGUE
from metrics.store.protocol import Point
from metrics.store.sqlite import SqliteStore
from metrics.telemetry import Frame, Telemetry
from state.command import described
from state.decision import Answer

BASE_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z
NS = 1_000_000_000
HEALTHY = {
    "coherence": 0.96,
    "gas": 0.97,
    "rsi": 0.9,
    "action_cost": 0.02,
    "delta_lambda": 0.001,
    "delta_entropy": 0.0001,
    "lambda_opt": 0.5,
    "emission": 12.5,
    "gravity_wells": 1.0,
    "stable_clusters": 7.0,
    "transaction_rate": 310.0,
}


def frame(tick, **kpis):
    points = {f"kpi.{name}": value for name, value in {**HEALTHY, **kpis}.items()}
    points |= {"parameter.lambda1": 0.3, "node.node-0001.gravity": 2.5}
    return Frame(tick, float(tick), "GOVERNING", points)


class FakePort:
    """Implements `controller.port.Port`; what it was told is in `commands`, `reloads` and `refused`."""

    def __init__(self, directory: Path):
        self.telemetry = Telemetry()
        self.catalogue = CATALOGUE
        self.directory = directory
        self.commands, self.reloads, self.refused = [], [], {}
        self.answer = Answer(accepted=True, text="it will be done")
        self.busy = False
        self.alive, self.missing = True, []
        self.lock = threading.Lock()
        self.told_proposals = [
            {
                "id": "p-0123456789ab",
                "title": "Raise the budget",
                "kind": "budget",
                "status": "proposed",
                "summary": "s",
            }
        ]
        self.told_nodes = [
            {
                "node": f"node-{i:04d}",
                "cluster": f"c{i % 2}",
                "gravity": None if i == 3 else i / 2,
                "status": "isolated" if i == 4 else "healthy",
                "until_s": 900.0 if i == 4 else None,
                "offences": 0,
                "exemption": None,
                "why": "isolated by policy, offence 1" if i == 4 else f"|g| {i / 2:.2f} within 1.5",
            }
            for i in range(5)
        ]

    def history(self):
        return SqliteStore(self.directory / "telemetry.db")

    def fill(self, ticks, *, publish=True):
        store = self.history()
        store.write(
            Point(name, tick * NS, value)
            for tick in range(ticks)
            for name, value in frame(tick, coherence=tick / ticks).points.items()
        )
        store.close()
        if publish:
            self.telemetry.publish(frame(ticks))

    def metrics(self):
        durations = Durations((0.1,), (1, 0), 0.05)
        return ExportSnapshot("GOVERNING", ("IDLE", "GOVERNING"), durations, durations, kpis={"coherence": 0.96})

    def base_time_s(self):
        return BASE_S

    def state(self):
        return {
            "phase": "GOVERNING",
            "phase_number": 4,
            "meaning": "gravity-well daemon",
            "plant": "embedded",
            "epoch": 3,
            "tick": 7,
            "safe_mode": None,
            "pause": None,
            "nodes": 5,
            "out": 1,
            "wells": ["node-0004"],
            "blocked": [],
            "exemptions": [],
            "journal": {"seq": 9, "hash": "ab" * 32},
            "version": "2.0.0",
        }

    def nodes(self):
        return self.told_nodes

    def explain(self, subject):
        if subject == "3":
            return {"subject": "3", "event": self.journal(2, 1)[0]}
        known = {node["node"]: node for node in self.told_nodes}
        if subject not in known:
            return None
        return {"subject": subject, "node": known[subject], "blocked_by": None, "not_done": [], "events": []}

    def journal(self, after, limit):
        return [
            {"seq": seq, "at_s": float(seq), "kind": "SEEN", "text": f"event {seq}", "data": {}, "hash": f"{seq:064x}"}
            for seq in range(after + 1, min(9, after + limit) + 1)
        ]

    def proposals(self):
        return self.told_proposals

    def command(self, command, *, by, reason, key):
        if self.busy:
            raise BusyError
        with self.lock:
            self.commands.append(SimpleNamespace(command=described(command), by=by, reason=reason, key=key))
            return Commanded(self.answer, 10 + len(self.commands), "cd" * 32)

    def reload(self, *, by):
        self.reloads.append(by)
        return self.answer

    def refuse_request(self, why):
        with self.lock:
            self.refused[why] = self.refused.get(why, 0) + 1

    def live(self):
        return self.alive

    def not_ready(self):
        return self.missing
