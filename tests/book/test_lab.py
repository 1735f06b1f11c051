"""`make lab` opens a chapter as a notebook, with settings of its own."""

from __future__ import annotations

import json

from lab import command, main


def test_the_command_opens_the_chapter_with_its_own_settings(root, tmp_path, monkeypatch):
    line = command(tmp_path, "trees/path_dependent", ["--no-browser"])
    assert "--LabApp.default_url=/lab/tree/book/trees/path_dependent.md" in line
    assert line[-1] == "--no-browser"
    settings = tmp_path / "_build" / "lab" / "settings"
    assert f"--LabApp.user_settings_dir={settings}" in line
    place = settings / "@jupyterlab" / "docmanager-extension" / "plugin.jupyterlab-settings"
    viewers = json.loads(place.read_text(encoding="utf-8"))["defaultViewers"]
    assert viewers["markdown"] == viewers["myst"] == "Jupytext Notebook"


def test_a_half_right_name_gets_a_suggestion(capsys):
    assert main(["path_dependent"]) == 2
    assert "Did you mean trees/path_dependent?" in capsys.readouterr().out
