"""Small batches in fp64, and finite differences."""

import pytest
import torch

from plaudit.experience import Experience, Outputs

VOCABULARY = 5


def make_experience(rewards, groups=None, lengths=None, *, width=4, seed=0, **changes):
    """Rows of one prompt token and up to ``width`` response tokens, all in fp64, with random log-probs."""
    rows = len(rewards)
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths or [width] * rows)
    real = torch.arange(width + 1) <= lengths[:, None]
    mask = real.clone()
    mask[:, 0] = False
    logprobs = -1.5 * torch.rand(3, rows, width + 1, generator=draw, dtype=torch.float64) * mask
    fields = {
        "tokens": torch.randint(VOCABULARY, (rows, width + 1), generator=draw),
        "attention_mask": real,
        "response_mask": mask,
        "group_ids": torch.tensor(groups or [0] * rows),
        "rewards": torch.tensor(rewards, dtype=torch.float64),
        "truncated": torch.zeros(rows, dtype=torch.bool),
        "length_limits": torch.full((rows,), width),
        "old_logprobs": logprobs[0],
        "sampled_logprobs": logprobs[0],
        "ref_logprobs": logprobs[1],
        "values": logprobs[2],
    }
    return Experience(**(fields | changes))


@pytest.fixture
def experience():
    return make_experience


class Table(torch.nn.Module):
    """A policy that is a table of logits, one row a place; in fp64."""

    def __init__(self, width=5, seed=1):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.logits = torch.nn.Parameter(torch.randn(width, VOCABULARY, generator=draw, dtype=torch.float64))

    def forward(self, batch):
        logp = self.logits[: batch.tokens.shape[1]].log_softmax(-1)
        chosen = logp.expand(len(batch), *logp.shape).gather(-1, batch.tokens[..., None]).squeeze(-1)
        entropy = -(logp.exp() * logp).sum(-1).expand(len(batch), -1)
        mask = batch.response_mask
        return Outputs(logprobs=torch.where(mask, chosen, 0.0), entropy=torch.where(mask, entropy, 0.0))


@pytest.fixture
def table():
    return Table()


@pytest.fixture
def differences():
    """Gradient of ``f()`` with respect to a parameter, by central finite differences."""

    def gradient(f, parameter, step=1e-6):
        result = torch.zeros_like(parameter)
        with torch.no_grad():
            for index in range(parameter.numel()):
                place, kept = parameter.view(-1), parameter.view(-1)[index].item()
                place[index] = kept + step
                above = float(f())
                place[index] = kept - step
                below = float(f())
                place[index] = kept
                result.view(-1)[index] = (above - below) / (2 * step)
        return result

    return gradient
