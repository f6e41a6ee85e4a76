"""Models as torch modules: policy and reference, critic, reward model; each turns a batch into `Outputs`.

Read `policy.py` first: the critic and the reward model are built in the same way. `forward/` runs a transformers trunk
and its LM head; `files/` loads and saves; `lora.py` adds adapters. Optimizer steps are taken elsewhere, by the learners
in `backends/`.
"""
