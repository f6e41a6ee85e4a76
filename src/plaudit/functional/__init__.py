"""Formulas as pure functions on tensors: no models, no config, no files. A mask is True where the position counts.

Each docstring names the paper and the equation. Read `advantages.py` and `losses.py` first: reward to advantage to loss
is the way of PPO; `weights.py` says how a mean over a batch is taken, once for all losses.
"""
