"""Where does the product keep its files unless it is told otherwise?

Apart from everything else, so that the command line knows it without importing what writes there.
"""

from __future__ import annotations

from pathlib import Path

DATA_DIR = Path(".iace")
REPORT_DIR = Path("reports")
