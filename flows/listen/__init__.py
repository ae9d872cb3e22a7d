"""`crosstie listen`: notices of scenes in, runs of the deployment `crosstie-new-scene/new-scene` out."""
