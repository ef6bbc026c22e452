"""Whatever runs as a command says how when asked, and refuses what it does not know."""

import runpy
import sys

import pytest

from lib.paths import ROOT

COMMANDS = [
    (str(path.relative_to(ROOT)),)
    for folder in ("lib", "notebooks", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text()
]
SUBCOMMANDS = [("lib/__main__.py", name) for name in ("fit", "predict", "evaluate", "export")]


@pytest.mark.parametrize("command", COMMANDS + SUBCOMMANDS, ids=" ".join)
def test_every_command_has_a_help_and_refuses_what_it_does_not_know(command, monkeypatch, tmp_path, capsys):
    file, *name = command
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # benchmarks add to it

    def status(option):
        monkeypatch.setattr(sys, "argv", [file, *name, option])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / file), run_name="__main__")
        return end.value.code

    assert status("--help") == 0
    usage, description = capsys.readouterr().out.split("\n\n")[:2]
    assert usage.lower().startswith("usage: ")
    assert not description.lower().startswith(("positional arguments:", "options:")), "says nothing of itself"
    assert status("--unknown") == 2
    assert "error: " in capsys.readouterr().err.lower()
    assert not list(tmp_path.iterdir()), "written"
