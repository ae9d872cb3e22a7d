"""Notices that a scene has arrived (`notices`), and the envelope of Amazon SNS round them (`sns`).

Import its modules directly.
"""
