"""Which node, which KPI, since when: streaming anomaly detection over many series at once.

Start at :class:`metrics.anomaly.detector.StreamingDetector`; :mod:`metrics.anomaly.verdict` turns its scores into one
verdict over nodes and KPIs. The method, its sources, figures and limits are in docs/anomaly.md.
"""
