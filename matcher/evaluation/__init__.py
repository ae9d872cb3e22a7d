"""How good a matcher is: `metrics` of its errors, and `comparison` of two matchers."""
