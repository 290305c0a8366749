"""How the cluster is doing: KPIs, observations, the gravity field, detectors, stores."""
