"""The API keeps what its OpenAPI document promises, tried by schemathesis on every route."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process


def test_the_whole_document_holds(tmp_path):
    """Valid, invalid and borderline requests to every operation: no failure of any of schemathesis' checks."""
    file = Path(__file__).with_name("api_schema.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", "-W", "default", file],
        cwd=file.parents[1],
        env={**os.environ, "IACE_TEST_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) == 25  # all but the document's own route
