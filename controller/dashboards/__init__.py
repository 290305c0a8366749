"""The Grafana dashboards as code: what `python -m controller.dashboards` writes to `grafana/dashboards/`.

Names come from the metric catalogue, limits from the KPI catalogue, states from the state machine, so that a dashboard
cannot show a threshold, a state or a code that the program does not have. Only generating needs the dashboard library;
nothing that governs imports this package.
"""

import warnings

with warnings.catch_warnings():
    # The library would rather have the schema's next version, which many a Grafana in use cannot import yet.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import dashboard, timeseries

# The warnings come with the first import, so it is made here.
__all__ = ["dashboard", "timeseries"]
