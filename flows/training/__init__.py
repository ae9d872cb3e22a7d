"""Train, mine, calibrate and hand over: `train.run_training`, and its stages as a Prefect flow in `flow`.

Nothing is re-exported: torch and Prefect are slow to import.
"""
