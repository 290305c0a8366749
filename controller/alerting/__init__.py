"""Prometheus' rules, generated: `python -m controller.alerting` writes them, docs/alerting.md explains them."""
