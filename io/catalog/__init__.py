"""STAC catalogs: searching an API, a website, a folder or a table, with one result for all.

Outside, import from `search` (`SceneQuery`, `find_scenes`, `find_scene`); settings import from `query`.
"""
