"""Draw docs/run.svg: the terminal of a real run, `iace run --scenario byzantine-node`, as rich exports it.

Nothing is staged: the run is the product's own, and both views are what its console draws. The live view is shown as it
stood shortly after the node had been isolated, and below it the summary at the end. Run it again whenever the console
has changed; the same code gives the same picture.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.text import Text

from controller import config as configuration
from controller import display
from controller.console import RunConsole
from controller.plants.embedded import load_scenario
from controller.record import KpiHistory, RunRecord
from controller.run import Job, execute
from controller.settings import Config
from state.event import Event, EventKind
from state.phase import Phase

SCENARIO = "byzantine-node"
TARGET = Path(__file__).resolve().parents[1] / "docs" / "run.svg"
WIDTH = 100
LATER_TICKS = 40  # the dip of the KPIs is then in view, and so is their recovery


class PictureConsole(RunConsole):
    """The console of a run, which copies two of its views onto `paper`."""

    def __init__(self, config: Config, paper: Console) -> None:
        # A terminal that nobody sees; it is redrawn at every tick, so that the picture does not depend on the machine.
        screen = Console(file=io.StringIO(), force_terminal=True, width=WIDTH, markup=False, highlight=False)
        super().__init__(config.catalogue(), console=screen, clock=count().__next__)
        self._paper = paper
        self._ticks_left: int | None = None

    def event(self, event: Event) -> None:
        """Notes when the scenario's node is out; Phase III isolates one as well, but of its own making."""
        super().event(event)
        if event.kind is EventKind.ISOLATION_VERIFIED and self._glance.stage is Phase.GOVERNING:
            self._ticks_left = LATER_TICKS

    def tick(self, history: KpiHistory, isolated: Collection[str] = ()) -> None:
        """Copies the live view, once."""
        super().tick(history, isolated)
        if self._ticks_left is not None:
            self._ticks_left -= 1
            if self._ticks_left == 0:
                self._paper.print(display.live_view(self._glance))
                self._paper.print(
                    Text(f"\n … {LATER_TICKS} ticks after the isolation; and at the end:\n", "dim italic")
                )

    def finish(self, record: RunRecord, paths: Sequence[Path]) -> None:
        """Copies the summary."""
        super().finish(record, paths)
        self._paper.print(display.summary(record, paths))


def main() -> int:
    """Draw the picture; the run's exit code."""
    config = configuration.load(None, {})
    paper = Console(record=True, file=io.StringIO(), force_terminal=True, width=WIDTH, markup=False, highlight=False)
    paper.print(Text(f"$ iace run --scenario {SCENARIO}", "bold"))
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        job = Job(config, load_scenario(SCENARIO), Path(".iace"), Path("reports"), dry_run=False)
        with PictureConsole(config, paper) as console:
            finished = execute(job, console)
    svg = paper.export_svg(title=f"iace run --scenario {SCENARIO}", unique_id="iace")
    TARGET.write_text(svg, encoding="utf-8")
    print(f"{TARGET}: {len(svg)} characters, exit code {int(finished.outcome.code)}")
    return int(finished.outcome.code)


if __name__ == "__main__":
    sys.exit(main())
