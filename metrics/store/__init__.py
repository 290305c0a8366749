"""Time-series stores: where the telemetry of a run is kept and read back from."""
