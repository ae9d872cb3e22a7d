"""Choose which scenes make pairs.

Outside, import from `pair_scenes` (pairs, rules, plan and its tables); the other modules are its parts.
"""
