"""`crosstie listen`: a notice of a scene comes in, one run of `crosstie-new-scene/new-scene` goes out.

The command calls `serve.serve`; `app.make_app` is the ASGI application.
"""
