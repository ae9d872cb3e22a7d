"""What stored values mean: the sensor of a band, its unit, its scale, which values can be true.

Outside `io/raster`, only `io/datasets` and the tests import from here.
"""
