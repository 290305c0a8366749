"""The daemon's HTTP API; `app.py` puts it together, `server.py` serves it."""
