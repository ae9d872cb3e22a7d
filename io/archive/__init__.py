"""What a product root holds besides products: claims, failure records, run logs, a listing and an index.

Import its modules directly; there is nothing else here.
"""
