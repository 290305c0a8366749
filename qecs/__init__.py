"""The governed system: a reference QECS v1.5 cluster."""
