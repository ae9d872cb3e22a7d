"""What runs, workers and services say of themselves: figures for Prometheus, lines of a log, traces."""
