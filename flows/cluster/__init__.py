"""Dask: connect to a cluster (`connect`), match on it (`engine`), and what its workers and scheduler load."""
