"""One pair, without Prefect or Dask: plan, measure, estimate, publish. Import its modules directly."""
