"""The image: its Dockerfile read and checked, built by an engine, and what its files are."""
