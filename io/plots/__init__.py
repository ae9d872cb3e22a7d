"""Figures for people, drawn with matplotlib: `evaluation`, `training`, and the `style` that all share.

Nothing is re-exported: matplotlib is slow to import.
"""
