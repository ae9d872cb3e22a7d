"""Scenes as columns (`table`), their ids, their outlines, and areas and overlaps on the ground.

Import its modules; `table.Scenes` and `overlap.overlaps` are used most.
"""
