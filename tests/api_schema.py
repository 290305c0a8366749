"""schemathesis against the whole API; started by test_api_schema.py as a process of its own.

schemathesis makes its cases while tests are collected, for seconds, which no other run of the tests should pay for.
IACE_TEST_DIR is where the application's files go.
"""

import os
import runpy
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, Phase, settings

from controller.api.app import STREAM, create_app
from controller.api.auth import Role, TokenFile
from controller.settings import ApiSettings

DIRECTORY = Path(os.environ["IACE_TEST_DIR"])
EXAMPLES = 6

FAKE = runpy.run_path(str(Path(__file__).with_name("fake_port.py")))
PORT, TOKENS = FAKE["FakePort"](DIRECTORY), TokenFile(DIRECTORY / "tokens.json")
PORT.fill(20)
SECRET = TOKENS.create("ops", Role.OPERATOR)
APP = create_app(PORT, ApiSettings(rate_per_s=1e6, burst=1e6), TOKENS)
APP.extensions[STREAM].start()
PORT.telemetry.publish(FAKE["frame"](21))
SCHEMA = schemathesis.openapi.from_wsgi("/openapi.json", APP)


@SCHEMA.auth()
class Bearer:
    """Every request is an operator's, but for those that try without."""

    def get(self, _case, _context):
        return SECRET

    def set(self, case, data, _context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_the_api_does_what_its_description_says(case):
    """No status, shape or type that is not described, no bad request taken, no good one refused."""
    if case.path.endswith("/stream"):  # a stream ends after one event, which is all that there is
        events = str((case.query or {}).get("events", 1))
        case.query = {**(case.query or {}), "events": 1 if events.isdigit() and events != "0" else events}
        case.headers = {name: value for name, value in (case.headers or {}).items() if name != "Last-Event-ID"}
    case.call_and_validate()
