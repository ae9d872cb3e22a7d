"""Simulated pairs (`pairs`), crops of a real scene (`crops`) and archives without pixels (`archive`).

Nothing is re-exported: import the module.
"""
