"""How the matcher learns: samples, learner, loop, calibration on held-out places.

The flows import `loop`, `plan`, `samples`, `unlabelled`, `held_out` and `held_out_calibration`.
"""
