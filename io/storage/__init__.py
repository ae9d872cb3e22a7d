"""Addresses, object storage and HTTP: what may be read, how it is reached, and which parts may be shown.

Import its modules: `store.open_store` opens a product root, `href_policy.resolve_href` checks an href.
"""
