"""Simulated pairs (`pairs`), crops of a real scene (`crops`), and what has no pixels.

That is tie points (`tie_points`) and archives (`archive`).

Nothing is re-exported: import the module.
"""
