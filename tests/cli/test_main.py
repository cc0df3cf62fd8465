"""The command line as users meet it: quick help, one-line errors, exit codes, only the verb asked for loaded."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from hoarfrost.cli import main
from hoarfrost.errors import InputError
from hoarfrost.runs.interrupt import StoppedBySignal

Pretend = Callable[[Exception], None]


def hoarfrost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from hoarfrost.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Make a verb 'info' that fails in a given way."""

    def install(error: Exception) -> None:
        def command() -> None:
            raise error

        module = type(sys)("pretended")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setattr(main, "import_module", lambda name: module)

    return install


def test_help_loads_neither_torch_nor_a_verb() -> None:
    code = (
        "import sys; from hoarfrost.cli.main import run; code = run(['--help']);"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules);"
        "sys.exit(f'{code} {heavy}' if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for verb in main.available_verbs():
        assert verb.name in done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys; import hoarfrost;"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", [verb.name for verb in main.available_verbs()])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([verb, "--help"]) == 0
    assert f"hoarfrost {verb}" in capsys.readouterr().out


def test_nothing_asked_for_gives_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 0
    assert "abinit" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hoarfrost 0.")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["abint"], "error: there is no verb 'abint'; did you mean 'abinit'?"),
        (["zzzzzz"], "error: there is no verb 'zzzzzz'; hoarfrost --help lists them"),
        (["--nonsense"], "error: No such option: --nonsense; see hoarfrost --help"),
        (["abinit"], "error: Missing argument"),
        (["abinit", "x.star"], "error: Missing option '--output'"),
        (["abinit", "x.star", "-o", "y", "--preset", "slow"], "error: Invalid value for '--preset'"),
        (["abinit", "x.star", "-o", "y", "--seed", "one"], "error: Invalid value for '--seed'"),
        (["abinit", "x.star", "-o", "y", "--symmetry", "C0"], "error: "),
        (["abinit", "no.star", "-o", "y"], "error: no.star: no such file"),
        (["cite", "nobody"], "error: nobody: neither the folder of a run nor one of abinit"),
    ],
)
def test_what_the_user_got_wrong_is_one_line_and_code_2(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.star: row 3:\n no image"), 2, "error: a.star: row 3: no image\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/map.mrc"), 2, "error: /x/map.mrc: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied\n"),
        (StoppedBySignal("run: stopped; go on", 15), 143, "run: stopped; go on\n"),
        (StoppedBySignal("run: stopped", 2), 130, "run: stopped\n"),
        (typer.BadParameter("too small"), 2, "error: "),
    ],
)
def test_how_verbs_end(
    error: Exception, code: int, line: str, pretend: Pretend, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(error)
    assert main.run(["info"]) == code
    assert capsys.readouterr().err.startswith(line)


def test_a_fault_of_ours_goes_into_a_file(
    pretend: Pretend, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pretend(RuntimeError("the\nmatrix is singular"))
    assert main.run(["info"]) == 1
    said = capsys.readouterr().err
    (report,) = tmp_path.glob("hoarfrost-*.txt")
    assert said.count("\n") == 1
    assert "RuntimeError: the matrix is singular" in said
    assert str(report) in said
    assert "Traceback" in report.read_text()
    monkeypatch.setenv("HOARFROST_DEBUG", "1")
    assert main.run(["info"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = "from hoarfrost.cli.main import main; main()"
    line = f'"{sys.executable}" -c "{code}" cite | head -n 1'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert "Rose (1998)" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_doctor_measures_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in ("TFLOP/s in float32", "TFLOP/s in bfloat16", "cores", "GB free", "RELION", "hoarfrost[viewer]"):
        assert word in said


def test_cite_by_verb_and_as_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cite", "fsc"]) == 0
    text = capsys.readouterr().out
    assert "10.1016/j.jmb.2003.07.013" in text
    assert "HEALPix" not in text
    assert main.run(["cite", "--bibtex"]) == 0
    assert capsys.readouterr().out.count("@article{") == 13


def test_every_verb_of_the_table_is_there_or_left_out() -> None:
    assert {"abinit", "demo", "info", "doctor", "cite"} <= {verb.name for verb in main.available_verbs()}
    assert hoarfrost("--help").returncode == 0
