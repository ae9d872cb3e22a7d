"""Settings: what can be set (`groups`), read from all sources (`load`), described for people (`describe`).

Import them from `crosstie.config`.
"""
