"""`crosstie site`: what an archive holds, in a browser and at /metrics. Reads only."""
