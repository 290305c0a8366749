"""HARU: forecasts of the KPIs, and identification of the environment for the tuner."""
