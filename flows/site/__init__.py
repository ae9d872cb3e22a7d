"""`crosstie site`: what an archive holds, in a browser and at /metrics. Changes nothing.

The command calls `serve.serve`; `app.make_app` is the ASGI application.
"""
