"""Metrics for Prometheus, log lines and traces of runs, workers and services. Import its modules directly."""
