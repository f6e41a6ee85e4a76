"""What is read is data: no run unpickles anything, and a model made to run code is refused or runs none."""

import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plaudit.errors import ModelError
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

SOURCE = Path(__file__).parents[2] / "src"
RUNS = """
import json, sys
found = []
def hook(event, args):
    if event == "pickle.find_class":
        found.append([str(a) for a in args])
sys.addaudithook(hook)
import pickle
assert pickle.loads(pickle.dumps(len)) is len and found, "the hook sees what it is to see"
found.clear()
from plaudit.cli.main import main
small = ["--max-new-tokens", "4", "--epochs", "1"]
done = []
def run(*words):
    done.append(main([*words]))
run("sft", "--model", "lm", "--dataset", "sft.jsonl", "--out", "sft", "--every", "1")
run("reward", "--model", "lm", "--dataset", "pairs.jsonl", "--out", "reward", "--rank", "2")
run("dpo", "--model", "sft", "--dataset", "pairs.jsonl", "--out", "dpo")
ppo = ["ppo", "--policy", "sft", "--reward", "reward", "--dataset", "prompts.jsonl", "--prompts-per-iteration", "4",
       "--max-new-tokens", "4", "--every", "1", "--anyway", "--out", "ppo"]
run(*ppo, "--iterations", "2")
run(*ppo, "--iterations", "3", "--resume")
run("evaluate", "reward", "reward", "--dataset", "pairs.jsonl")
run("report", "ppo")
print("\\n" + json.dumps({"codes": done, "unpickled": found}))
"""


def files(root):
    """A language model and a few rows of each kind."""
    words = ["red", "blue", "green", "warm", "cold", "good", "bad", "big"]
    tokenizer = tiny_tokenizer([" ".join(words)], 64)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), root / "lm", tokenizer)
    prompts = [f"{a} {b}" for a in words for b in words[:4]]
    rows = {
        "sft": [{"prompt": p, "response": " good big"} for p in prompts],
        "pairs": [{"prompt": p, "chosen": " good big", "rejected": " bad"} for p in prompts],
        "prompts": [{"prompt": p} for p in prompts],
    }
    for name, some in rows.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return tokenizer


def test_no_command_unpickles_anything(tmp_path):
    """D1, at run time: SFT, a reward model with an adapter, DPO, PPO and its resume, an evaluation, a report."""
    files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", RUNS], cwd=tmp_path, capture_output=True, text=True, timeout=3000, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["codes"] == [0] * 7, done.stderr
    assert found["unpickled"] == []


class Harm:
    """What a pickle runs when it is opened."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def pickled(path, mark):
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Harm(mark)))


def zipped(path, mark):
    """As `torch.save` writes it."""
    (path / "model.safetensors").unlink()
    with zipfile.ZipFile(path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harm(mark)))
        archive.writestr("archive/version", "3\n")


def polyglot(path, mark):
    """A pickle under the name of safetensors, with an archive behind it."""
    (path / "model.safetensors").write_bytes(pickle.dumps(Harm(mark)))
    with zipfile.ZipFile(path / "model.safetensors", "a") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harm(mark)))


def huge_header(path, mark):
    """It says that its header has 2^62 bytes."""
    weights = path / "model.safetensors"
    weights.write_bytes((1 << 62).to_bytes(8, "little") + weights.read_bytes()[8:])


def long_header(path, mark):
    """A header of more than 100 MB, which it has."""
    header = b'{"__metadata__":{"x":"' + b"y" * 101_000_000 + b'"}}'
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def overlapping(path, mark):
    """Two tensors in one place."""
    weights = load_file(path / "model.safetensors")
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    content = (path / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def own_code(path, mark):
    """A repository with code of its own, which transformers runs if it is told to."""
    (path / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((path / "config.json").read_text())
    classes = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (path / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": classes}))


REFUSED = {
    kind.__name__: kind for kind in (pickled, zipped, polyglot, huge_header, long_header, overlapping, own_code)
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_made_to_do_harm_is_refused_and_nothing_is_run(tmp_path, kind):
    """D2: with a cure, and no traceback of a library."""
    files(tmp_path)
    (tmp_path / "lm" / "SHA256SUMS").unlink()
    mark = tmp_path / "harm"
    REFUSED[kind](tmp_path / "lm", mark)
    for load in (load_causal_lm, lambda path: RewardModel.load(path, load_tokenizer(path))):
        with pytest.raises(ModelError) as caught:
            load(tmp_path / "lm")
        assert caught.value.cure
    assert not mark.exists()


@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
def test_code_named_beside_a_known_architecture_is_not_run(tmp_path, where):
    """``auto_map`` with a model that needs none of it: it is loaded by what transformers has."""
    files(tmp_path)
    (tmp_path / "lm" / "SHA256SUMS").unlink()
    mark = tmp_path / "harm"
    (tmp_path / "lm" / "evil.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((tmp_path / "lm" / where).read_text())
    named = {"AutoTokenizer": ["evil.Evil", None], "AutoModelForCausalLM": "evil.Evil"}
    (tmp_path / "lm" / where).write_text(json.dumps(config | {"auto_map": named}))
    load_causal_lm(tmp_path / "lm", tokenizer=load_tokenizer(tmp_path / "lm"))
    assert not mark.exists()


ATTACKS = (
    "{{ cycler.__init__.__globals__.os.system('touch MARK') }}",
    "{{ self.__init__.__globals__.__builtins__.open('MARK', 'w') }}",
    "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "{% for m in messages %}{{ m.update({'content': 'x'}) }}{% endfor %}",
    "{{ lipsum.__globals__['os'].popen('touch MARK').read() }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_chat_template_reaches_nothing_outside_of_itself(tmp_path, attack):
    """D2: it runs in a sandbox; an attack is refused with a sentence, or writes nothing."""
    from plaudit.data.chat.template import Template
    from plaudit.errors import DataError
    from plaudit.records import Message

    tokenizer = files(tmp_path)
    mark = tmp_path / "harm"
    tokenizer.chat_template = attack.replace("MARK", str(mark))
    try:
        text = Template(tokenizer).write([Message("user", "red")], open_end=True)
    except DataError as error:
        assert error.cure
    else:
        assert "class" not in text and "open" not in text
    assert not mark.exists()


def test_the_source_never_asks_for_remote_code_and_no_data_set_script_is_run():
    """D3: neither word stands there as an argument; loading a data set gives it no chance either."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    assert not re.findall(r"trust_remote_code\s*=", text)
    assert not re.findall(r"weights_only\s*=\s*False", text)
    assert not re.findall(r"torch\.load\(|allow_pickle\s*=\s*True", text)
    assert torch.__version__ >= "2", "the floor below which even safe loading was not"
