"""Which files of a folder are read: those to train on, and never those of a test with them."""

# A folder of data is a repository of the hub, a data set that `datasets` has saved, the shards of one file, or files
# that somebody put side by side. In all of them the split stands in a name: of the file, or of a folder around it.

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.data.reading.opening.files import READABLE, encoding_of
from plaudit.data.reading.opening.splits import HELD_OUT, TRAINING, is_of
from plaudit.data.reading.rows import ReadLog
from plaudit.errors import DataError

DESCRIPTIONS = {
    "dataset_info.json": "a description of data sets",
    "dataset_infos.json": "a description of data sets",
    "dataset_dict.json": "the list of splits of a saved data set",
    "state.json": "the state of a saved data set",
    "README.md": "the card of a data set",
}
_SHARD = re.compile(r"[-_.]?\d+(?:[-_]of[-_]\d+)?(?:-[0-9a-f]{8,})?$")
_TEXTS_ABOUT = re.compile(r"read_?me|licen[cs]e|notice|citation|requirements|changelog|authors", re.IGNORECASE)


def describes(path: Path) -> str:
    """What a file that describes data and holds none is, in words; "" for a data file."""
    return DESCRIPTIONS.get(path.name, "")


def split_of(path: Path) -> tuple[Path | None, str]:
    """The folder that a path names and the split, written as FOLDER:SPLIT; no folder if it names none."""
    if path.is_dir():
        return path, ""
    folder, colon, split = str(path).rpartition(":")
    return (Path(folder), split) if colon and split and Path(folder).is_dir() else (None, "")


def files_of(folder: Path, split: str, log: ReadLog) -> list[Path]:
    """The files of one split of a folder; what else is there is said.

    Args:
        split: "" for the one to train on, or all files where none of them says what it is for.

    Raises:
        DataError: there are no data, no such split, or it is not clear which files are meant.
    """
    groups = _saved(folder) or _listed(folder) or _named(folder)
    if not groups:
        raise DataError("no data files in the directory", where=str(folder), cure=f"expected {READABLE}")
    chosen = _chosen(folder, split, groups)
    files = groups[chosen]
    _same_twice(files)
    shown = ", ".join(str(f.relative_to(folder)) for f in files[:8]) + " ..." * (len(files) > 8)
    log.note(f"{len(files)} files of the directory: {shown}")
    if others := [name for name in groups if name != chosen]:
        named = ", ".join(f"{name or 'other files'} ({len(groups[name])})" for name in others)
        how = f"name one as {folder}:{others[0]}" if others[0] else f"name a file, such as {groups[''][0]}"
        log.note(f"not read: {named}; {how}")
    return files


Groups = dict[str, list[Path]]
"""Split -> its files; "" for files that do not say for what they are."""


def _chosen(folder: Path, split: str, groups: Groups) -> str:
    """The name of the group to read."""
    if split:
        if split not in groups:
            cure = f"the splits are {', '.join(name or 'files without a split' for name in groups)}"
            raise DataError(f"there is no split {split!r}", where=str(folder), cure=cure)
        return split
    training = [name for name in groups if is_of(name, TRAINING)]
    exact = [name for name in training if name in TRAINING]
    plain = [name for name in groups if name and name not in training and not is_of(name, HELD_OUT)]
    for names in (exact, training, [""] if "" in groups else [], plain, list(groups)):
        if len(names) == 1:
            return names[0]
        if names:
            break
    cure = " or ".join(f"{folder}:{name}" for name in names[:4])
    raise DataError(f"several splits: {', '.join(names)}", where=str(folder), cure=f"name one: {cure}")


# Three ways to find the splits


def _saved(folder: Path) -> Groups:
    """The splits of what `datasets` has saved with `save_to_disk`; none for other folders."""
    splits = _json(folder / "dataset_dict.json").get("splits")
    if isinstance(splits, list):
        return {str(name): _arrow(folder / str(name)) for name in splits if (folder / str(name)).is_dir()}
    if (folder / "state.json").is_file() and any(folder.glob("*.arrow")):
        return {"": _arrow(folder)}
    return {}


def _arrow(folder: Path) -> list[Path]:
    state = _json(folder / "state.json")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        cure = "save it again after flatten_indices()"
        raise DataError("the saved data set is a selection of rows of another", where=str(folder), cure=cure)
    names = [entry.get("filename") for entry in state.get("_data_files") or () if isinstance(entry, dict)]
    files = [folder / Path(str(name)).name for name in names] or sorted(folder.glob("*.arrow"))
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DataError("a file of the saved data set is missing", where=str(missing), cure="copy the whole folder")
    return files


def _listed(folder: Path) -> Groups:
    """The splits that the card of a data set lists: README.md, `configs` with `data_files`; none without a card."""
    configs = [config for config in _card(folder).get("configs") or () if isinstance(config, dict)]
    configs = [config for config in configs if config.get("data_files")]
    named = {str(config.get("config_name", "default")): config["data_files"] for config in configs}
    if not named:
        return {}
    default = next((str(c.get("config_name")) for c in configs if c.get("default")), "default")
    groups: Groups = {}
    for name, entries in named.items():
        prefix = "" if name == default or len(named) == 1 else f"{name}/"
        for split, patterns in _entries(entries):
            files = [f for p in patterns for f in sorted(folder.glob(p.lstrip("/"))) if f.is_file() and encoding_of(f)]
            if files:
                groups.setdefault(prefix + split, []).extend(files)
    return groups


def _entries(value: Any) -> Iterator[tuple[str, list[str]]]:
    """Split and patterns of the `data_files` of a card, in each of its forms."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        value = [{"split": split, "path": path} for split, path in value.items()]
    plain = [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
    if plain:
        yield "train", plain
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, Mapping) and entry.get("path"):
            paths = entry["path"] if isinstance(entry["path"], list) else [entry["path"]]
            yield str(entry.get("split", "train")), [str(path) for path in paths]


def _named(folder: Path) -> Groups:
    """Files by what their names, and those of the folders around them, say of their split."""
    found = sorted(_data_below(folder))
    tables = [f for f in found if f.suffix.lower() != ".txt"] or found
    # Folders below are read as well, unless there are data here already: then they are something else.
    here = [f for f in tables if f.parent == folder]
    groups: Groups = {}
    for file in tables:
        split = _split_in(file.relative_to(folder))
        if here and not split and file.parent != folder:
            split = str(file.relative_to(folder).parent)
        groups.setdefault(split, []).append(file)
    if not here and not any(is_of(name, (*TRAINING, *HELD_OUT)) for name in groups) and "" in groups:
        groups = {}
        for file in tables:
            groups.setdefault(str(file.relative_to(folder).parent), []).append(file)
    return groups


def _split_in(path: Path) -> str:
    """The split that a path names: the last of its parts that holds such a word, without the number of a shard."""
    stem = path.name.split(".")[0]
    around = "/".join(part for part in path.parts[:-1] if part != "data" and not is_of(part, (*TRAINING, *HELD_OUT)))
    for part in (stem, *reversed(path.parts[:-1])):
        name = _SHARD.sub("", part) or part
        if is_of(name, (*TRAINING, *HELD_OUT)):
            return f"{around}/{name}" if around else name
    return ""


def _data_below(folder: Path) -> Iterator[Path]:
    """The data files of a folder and three levels of folders in it; hidden ones are none."""
    for place, folders, names in os.walk(folder):
        depth = len(Path(place).relative_to(folder).parts)
        folders[:] = [] if depth == 3 else [name for name in folders if not name.startswith((".", "__"))]
        for path in (Path(place, name) for name in names if not name.startswith((".", "__"))):
            about = path.suffix.lower() == ".txt" and _TEXTS_ABOUT.match(path.name)
            if encoding_of(path) and path.is_file() and not about and not describes(path):
                yield path


def _same_twice(files: Sequence[Path]) -> None:
    """Refuse two files of one name in different formats, which are most likely the same rows."""
    by_name: dict[Path, Path] = {}
    for file in files:
        name = file.with_name(file.name.split(".")[0])
        if name in by_name and encoding_of(by_name[name]) != encoding_of(file):
            what = f"{by_name[name].name} and {file.name} may hold the same rows"
            raise DataError(what, where=str(file.parent), cure=f"name one of them: {file}")
        by_name[name] = file


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _card(folder: Path) -> dict[str, Any]:
    """The YAML block at the top of README.md; empty without one, or where it cannot be read."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        found = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
        value = yaml.safe_load(found[1]) if found else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


