"""What a run needs of memory, worked out before anything is loaded, and what there is.

Read `plan.py` first: the roles of a run and the moments at which it needs most. `rehearsal.py` counts the bytes of live
tensors, while a run computes or while outlines of its models rehearse it.
"""
