"""The former name of `crosstie.flows.discover`."""

from crosstie.flows.discover import done_keys, find_pairs, look_up

__all__ = ["done_keys", "find_pairs", "look_up"]
