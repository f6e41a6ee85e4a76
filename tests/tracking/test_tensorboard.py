import os
import subprocess
import sys

import pytest

from plaudit.runs.recorder import Recorder
from plaudit.tracking import tensorboard as module

READ = """
import sys
from plaudit.runs.recorder import Recorder
from pathlib import Path
with Recorder(Path(sys.argv[1]), command="sft") as recorder:
    recorder.metrics(3, {"policy/entropy": 1.5})
print("torch" in sys.modules or "tensorflow" in sys.modules)
"""


def test_scalars_are_written_without_torch(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'plaudit[tensorboard]'")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    command = [sys.executable, "-c", READ, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert said.splitlines()[-1] == "False"
    (file,) = (tmp_path / "tensorboard").iterdir()
    scalars = [
        (event.step, value.tag, value.tensor.float_val[0])
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
    ]
    assert scalars == [(3, "policy/entropy", 1.5)]


def test_without_the_package_there_is_no_tracker(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with Recorder(tmp_path, command="sft") as recorder:
        recorder.metrics(1, {"loss": 1.0})
    assert not (tmp_path / "tensorboard").exists()


def test_samples_are_text_of_their_step(tmp_path):
    pytest.importorskip("tensorboard", reason="pip install 'plaudit[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    opened = module.tensorboard_tracker(tmp_path)
    for step in (1, 2):
        for response in ("Yes\n# no heading", "No"):
            opened.sample(step, {"response": response, "reward": step})
    opened.close()
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    assert reader.Tags()["tensors"] == ["samples/0", "samples/1"]
    texts = [(point.step, point.tensor_proto.string_val[0].decode()) for point in reader.Tensors("samples/0")]
    assert texts == [
        (1, "    response: Yes\n    # no heading\n    reward: 1"),
        (2, "    response: Yes\n    # no heading\n    reward: 2"),
    ]
