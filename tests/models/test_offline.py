"""HF_HUB_OFFLINE: nothing is asked of the network, what was downloaded before is read, and errors name the variable."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.models.tiny import tiny_lm, tiny_tokenizer

CHILD = """
import json, sys
asked = []
sys.addaudithook(lambda event, args: asked.append(event) if event in ("socket.getaddrinfo", "socket.connect") else None)
from plaudit.cli.main import main
codes = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, asked]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A cache of the hub that holds one tiny model, laid out as the hub's own library does."""
    root = tmp_path_factory.mktemp("hub")
    model = root / "models--someone--tiny"
    snapshot = model / "snapshots" / ("a" * 40)
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    tokenizer = tiny_tokenizer(["say red blue green"], chat=False)
    tiny_lm("llama", tokenizer, hidden=16, layers=1).save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    return root


def called(hub: Path, *commands: list[str], **variables: str) -> tuple[list[int], list[str], str]:
    """Exit codes of commands in a process of their own, what they asked of the network, and what they said."""
    source = {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": str(hub)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(commands)],
        capture_output=True, text=True, env=os.environ | source | variables, check=True,
    )  # fmt: skip
    codes, asked = json.loads(done.stdout.splitlines()[-1])
    return codes, asked, done.stdout + done.stderr


def test_offline_nothing_is_asked_of_the_network(hub, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"say {i}", "response": " red"}) + "\n" for i in range(4)))
    run = ["sft", "--dataset", str(data), "--threads", "1", "--batch-size", "2"]
    commands = [
        [*run, "--model", "someone/tiny", "--out", str(tmp_path / "there")],
        [*run, "--model", "someone/else", "--out", str(tmp_path / "not")],
        ["data", "check", "someone/rows"],
    ]
    codes, asked, said = called(hub, *commands, HF_HUB_OFFLINE="1")
    assert codes == [0, 78, 65] and asked == [], said
    assert said.count("unset HF_HUB_OFFLINE") == 2, said
    assert (tmp_path / "there" / "model" / "model.safetensors").is_file() and not (tmp_path / "not").exists()


def test_without_it_the_network_is_asked(hub, tmp_path):
    """So that the test above can fail. The address is one of this machine, at which nothing listens."""
    data = tmp_path / "x.jsonl"
    data.write_text('{"prompt": "say", "response": " red"}\n')
    command = ["sft", "--dataset", str(data), "--model", "someone/else", "--out", str(tmp_path / "not")]
    codes, asked, said = called(hub, command, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9")
    assert codes == [78] and asked and "check the network" in said, said
