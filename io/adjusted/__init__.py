"""An archive adjusted as one network: places and edges in, one position a scene out.

Import from the modules: `places`, `edges`, `outcome`, `publish`, ...
"""
