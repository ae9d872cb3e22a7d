"""A matcher against known offsets: `datasets` -> `placement` -> `evaluate` -> `report`, and `promote`.

Nothing is re-exported: the command line imports these only when it runs.
"""
