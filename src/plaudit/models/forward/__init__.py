"""The forward pass of a transformers trunk, without padding and without computing anything twice.

Read `trunk.py` first: `hidden_states` is what models call. `packing.py` removes padding and computes common prefixes
once, `lower.py` keeps the states of frozen layers, `head.py` turns states into log-probs and entropies.
"""
