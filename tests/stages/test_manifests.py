"""manifest.json of a run that is damaged, of another shape, or gone."""

import json

import pytest

from plaudit.errors import DataError, PlauditError
from plaudit.runs import directory, lock

MANIFEST = {
    "writer": {"pid": 1, "host": "h", "since": "s"}, "created": "2026", "seed": 0, "versions": {"python": "3"},
    "topology": {"world": 1, "threads": 1}, "settings": {"out": "run", "iterations": 3, "seed": 0, "data.fields": {}},
    "inputs": {"policy": {"source": "lm", "sha256": "ab"}}, "given": {"reward": "cd"}, "rows_sha256": "ef",
    "changed": [], "git": "", "finished": True,
}  # fmt: skip
ODD = [None, True, 0, -1, 10**30, 1.5, float("nan"), "", "x", [], {}, [[]], [{}], {"": ""}, {"a": []}, "\ud800"]


def places(value, at=()):
    """Every key of a nested object."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from places(inner, (*at, key))


def changed(value, at, odd):
    if not at:
        return odd
    return value | {at[0]: changed(value[at[0]], at[1:], odd)}


def test_manifests_of_runs_of_any_shape_are_read_or_refused(world, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    job = world.rl(run)
    job = job.model_copy(update={"checkpoint": job.checkpoint.model_copy(update={"resume": True})})
    tried = refused = 0
    for at in places(MANIFEST):
        for odd in ODD:
            (run / lock.MANIFEST).write_text(json.dumps(changed(MANIFEST, at, odd)))
            tried += 1
            try:
                directory.finished(job)
                lock._holder(run)
                with directory.open_run(job):
                    pass
            except PlauditError as error:
                refused += 1
                assert error.where and error.cure, (at, odd)
    assert tried == 27 * len(ODD) and refused > tried // 4


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"[]", b"{", b"[" * 100_000, b'{"finished": 1e999}', b"null"])
def test_a_damaged_manifest_has_a_cure_that_works(world, tmp_path, text):
    run = tmp_path / "run"
    job = world.rl(run)
    with directory.open_run(job):
        pass
    (run / lock.MANIFEST).write_bytes(text)
    (run / "events.jsonl").write_text("")
    again = job.model_copy(update={"checkpoint": job.checkpoint.model_copy(update={"resume": True})})
    with pytest.raises(DataError) as caught:
        directory.finished(again)
    assert "delete it: --resume then goes on" in caught.value.cure
    (run / lock.MANIFEST).unlink()
    assert directory.finished(again) is None
    with directory.open_run(again) as opened:
        assert opened == run
