"""Every governed system is adapted to one protocol; see `plant.py`."""
