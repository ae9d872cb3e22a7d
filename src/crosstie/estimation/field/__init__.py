"""The displacement field of a pair: relief, which no affine follows, as far as its tie points show it.

`fit.fit_field` fits one, `settings.FieldSettings` holds the limits: light, so that settings can take it.
"""
