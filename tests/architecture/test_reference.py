"""docs/reference is what the code says today."""

import reference


def test_reference_pages_are_current() -> None:
    for path, text in reference.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date: run `make docs`"


def test_every_setting_and_every_flag_is_in_the_reference() -> None:
    page = reference.config_page()
    for row in reference.COMMANDS.values():
        for setting in reference.settings(row.job):
            assert f"`{setting.flag}`" in page
            assert setting.help.replace("|", "\\|") in page
