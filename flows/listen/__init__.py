"""`crosstie listen`: a notice of a scene comes in, one run of `crosstie-new-scene/new-scene` goes out.

The command calls `serve.serve_events`; `app.make_listen_app` is the ASGI application.
"""
