"""`crosstie site`: what an archive holds, in a browser and at /metrics. Changes nothing.

The command calls `serve.serve_site`; `app.make_site_app` is the ASGI application.
"""
