"""Runs over many pairs under Prefect: claims, retries, outcomes, counts and progress.

A flow starts one with `run.Run`. Import its modules directly: Prefect must find its environment prepared.
"""
