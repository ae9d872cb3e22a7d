"""Real servers on loopback, for the tests and by hand: `PYTHONPATH=tests python -m servers`."""
