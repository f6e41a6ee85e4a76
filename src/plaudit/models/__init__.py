"""Models as torch modules: policy and reference, critic, reward model; each turns a batch into `Outputs`.

Read `policy.py` first: the critic and the reward model are built in the same way. `forward/` runs a transformers trunk
and its LM head; `files/` loads and saves; `lora.py` adds adapters. Optimizer steps are taken elsewhere, by the learners
in `backends/`.
"""

import logging
import warnings

# peft asks transformers by a name that the latter has renamed; a user can do nothing about it, and in a notebook the
# warning stands in red above the result.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
# transformers imports torchao wherever it is installed; without a GPU it then logs which kernels it cannot load, and
# torch logs how it registers types.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)
