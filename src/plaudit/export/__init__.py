"""A trained model in the formats that other programs run, and how near each is to the model that was trained."""

import plaudit.models  # noqa: F401 - first of all: it silences what transformers brings in
