"""Injects a scenario's faults at their time, and takes them back when the run is over."""

from __future__ import annotations

from controller.plants.plant import Plant
from controller.plants.scenario import PlannedFault, Scenario
from controller.session import Result, Session, Ticking
from metrics.errors import BadDataError, PlantError, PlantRefusedError, RecordingEndedError
from state.phase import Phase
from state.stimulus import ProbeEnded, ProbeIntended


class ScenarioFaults:
    """The faults of one scenario on one session; without a scenario it does nothing.

    They come over `plant` as it is: what befalls a virtual plant is no act of the controller's, and so befalls it in a
    dry run as well.
    """

    def __init__(self, session: Session, scenario: Scenario | None, plant: Plant) -> None:
        self._session = session
        self._plant = plant
        self._planned = list(scenario.faults) if scenario is not None else []
        self._injected: list[str] = []

    def during(self, phase: Phase, checks: Ticking[Result]) -> Ticking[Result]:
        """Run the checks of a phase while the faults planned for it begin at their ticks."""
        self._inject_due(phase, 0)
        try:
            next(checks)
            waited = 0
            while True:
                try:
                    seen = yield
                except RecordingEndedError as ended:
                    checks.throw(ended)
                    continue
                waited += 1
                self._inject_due(phase, waited)
                checks.send(seen)
        except StopIteration as finished:
            return finished.value  # type: ignore[no-any-return]  # what the generator declares

    def end(self) -> None:
        """Take back what is still in force; what the plant refuses has ended by itself."""
        for name in self._injected:
            try:
                self._plant.clear(name, key=self._key(name, "end"), epoch=self._epoch)
                result = "ended"
            except PlantError as error:
                result = f"not ended: {error}"
            self._session.loop.tell(ProbeEnded(f"scenario/{name}", {"result": result}))
        self._injected.clear()

    def _inject_due(self, phase: Phase, waited: int) -> None:
        due = [planned for planned in self._planned if planned.phase == phase and planned.after_ticks <= waited]
        for planned in due:
            self._planned.remove(planned)
            self._inject(planned)

    def _inject(self, planned: PlannedFault) -> None:
        name = str(planned.fault["id"])
        self._session.loop.tell(ProbeIntended(f"scenario/{name}", {"clear": name}))
        try:
            self._plant.inject(planned.fault, key=self._key(name, "begin"), epoch=self._epoch)
        except PlantRefusedError as refused:
            self._session.loop.tell(ProbeEnded(f"scenario/{name}", {"result": f"refused: {refused.reason}"}))
            raise BadDataError(f"the scenario cannot be run on this plant: {name}: {refused.reason}") from refused
        self._injected.append(name)

    def _key(self, name: str, step: str) -> str:
        return f"{self._session.run_id}/scenario-{name}-{step}"

    @property
    def _epoch(self) -> int:
        return self._session.loop.governor.state.epoch
