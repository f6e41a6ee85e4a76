"""The machines of a run on a Ray cluster: sharded learners on workers, generators and rewards as processes.

Each worker is a `LocalLearner` on a module that PyTorch's FSDP2 shards; whatever a run does in one process it does here
in the same code. The driver holds no model: it sends batches and gets numbers.
"""
