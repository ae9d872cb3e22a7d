"""The published method S2M2-SAR and its mended form, for comparison; no command matches with it.

The flows import `learner` and `settings`.
"""
