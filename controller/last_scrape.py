"""Metrics of a run that ends before anybody scrapes it: a file for node_exporter, a push to a Pushgateway, or both.

A file that cannot be written is a failure like that of the report: somebody relies on it, and the disk is ours. A
gateway that is down is not: the run has done its work, its exit code tells so, and the push is reported as missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metrics.errors import ConfigInvalidError, StoreFailedError
from metrics.export_snapshot import ExportSnapshot


@dataclass(frozen=True, slots=True)
class LastScrape:
    """Where the final metrics go.

    Attributes:
        textfile: the file, or None.
        pushgateway: the gateway's address, or None.
    """

    textfile: Path | None = None
    pushgateway: str | None = None

    @property
    def wanted(self) -> bool:
        """Whether they go anywhere."""
        return self.textfile is not None or self.pushgateway is not None

    def require_possible(self) -> None:
        """Find out at the start what would otherwise fail at the end.

        Raises:
            ConfigInvalidError: the gateway's address cannot be used, or the file's name would never be collected.
            NotPermittedError, StoreFailedError: the file cannot be written.
        """
        if not self.wanted:
            return
        from metrics import exporter  # noqa: PLC0415 - most runs have nobody to scrape for

        if self.pushgateway is not None:
            try:
                exporter.gateway_name(self.pushgateway)
            except ValueError as error:
                raise ConfigInvalidError("--pushgateway", [str(error)]) from error
        if self.textfile is not None:
            if self.textfile.suffix != ".prom":
                raise ConfigInvalidError("--textfile", [f"{self.textfile} must end in .prom, or nobody collects it"])
            exporter.require_writable(self.textfile)

    def write(self, snapshot: ExportSnapshot, monotonic_s: Callable[[], float]) -> None:
        """Write the file, if one is wanted.

        Raises:
            NotPermittedError, StoreFailedError: it cannot be written.
        """
        if self.textfile is not None:
            from metrics.exporter import Exporter  # noqa: PLC0415 - as above

            exporter = Exporter(monotonic_s)
            exporter.publish(snapshot)
            exporter.write_textfile(self.textfile)

    def push(self, snapshot: ExportSnapshot, monotonic_s: Callable[[], float], plant: str) -> str | None:
        """Push, if that is wanted, in the group of `plant`; what went wrong, for people, or None."""
        if self.pushgateway is None:
            return None
        from metrics.exporter import Exporter  # noqa: PLC0415 - as above

        exporter = Exporter(monotonic_s)
        exporter.publish(snapshot)
        try:
            exporter.push(self.pushgateway, {"plant": plant})
        except StoreFailedError as error:
            return str(error)
        return None
