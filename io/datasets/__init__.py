"""Pictures with known offsets, for training and benchmarks: public sets, labelled scenes, mined tiles.

Nothing is re-exported: import the module of the set. The command line reads `names` alone.
"""
