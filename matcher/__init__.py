"""Arrays in, offsets out: the matcher in use, how it is trained, and how it is judged. Knows no files.

The flows import `matching`, `screening`, `coarse`, `weights`, `weights_file`. No re-export: torch is slow
to import.
"""
