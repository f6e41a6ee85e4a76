"""What can be known of a run before it is started: does it fit, what is trained, can its reward be trusted, how long.

`examine.py` is the whole examination. Stages use parts of it in short when they start: `memory.py`, `template.py`.
"""
