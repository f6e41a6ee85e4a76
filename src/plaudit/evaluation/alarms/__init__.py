"""Detectors of what goes wrong while a run trains: pure functions of its figures. A stage records what they say."""
