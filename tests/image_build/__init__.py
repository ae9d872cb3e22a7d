"""Builds the image's file trees from its Dockerfile without an engine: the same steps, each in a root."""
