"""Simulated pairs (`pairs`), crops of a real scene (`crops`), and without pixels tie points
(`tie_points`) and archives (`archive`).

Nothing is re-exported: import the module.
"""
