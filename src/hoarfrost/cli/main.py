"""The ``hoarfrost`` command: a table of verbs, of which only the one asked for is loaded."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, NamedTuple, NoReturn

import typer

from hoarfrost import __version__
from hoarfrost.cli.process import leave_memory_to_the_system, prepare_process
from hoarfrost.errors import InputError, Interrupted


class Verb(NamedTuple):
    """A verb, the module whose ``command`` does it, and its line in the help."""

    name: str
    module: str
    help: str


VERBS = (
    Verb("demo", "hoarfrost.cli.demo", "Simulate a small data set, solve it blindly, and score the result."),
    Verb("abinit", "hoarfrost.cli.abinit", "Particles without poses in; poses, half-maps, a map and a report out."),
    Verb("refine", "hoarfrost.cli.refine", "Better poses and maps from a map, the halves of the data kept apart."),
    Verb("reconstruct", "hoarfrost.cli.reconstruct", "Half-maps and a map of particles whose poses are known."),
    Verb("simulate", "hoarfrost.cli.simulate", "Images of an atomic model or map, with CTF and noise."),
    Verb("evaluate", "hoarfrost.cli.evaluate", "Compare a run with a known truth."),
    Verb("select", "hoarfrost.cli.select", "A subset of the particles, by class, confidence or junk."),
    Verb("info", "hoarfrost.cli.info", "Say what a stack, table or map holds, and what looks wrong with it."),
    Verb("convert", "hoarfrost.cli.convert", "Turn a particle table into another format."),
    Verb("downsample", "hoarfrost.cli.downsample", "Bring a stack or map to a smaller box by Fourier cropping."),
    Verb("fsc", "hoarfrost.cli.fsc", "Fourier shell correlation of two maps."),
    Verb("mask", "hoarfrost.cli.mask", "Make a soft mask from a map."),
    Verb("flip", "hoarfrost.cli.flip", "Mirror a map, or a whole run with its poses."),
    Verb("doctor", "hoarfrost.cli.doctor", "Report on the installation and the speed of this machine."),
    Verb("cite", "hoarfrost.cli.cite", "The papers that a run relied on."),
)

_USER_CAN_MEND = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
}


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 a fault of ours, 2 a fault in what was given, 130/143 stopped."""
    code = run(sys.argv[1:])
    leave_memory_to_the_system()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; its exit code."""
    prepare_process()
    warnings = _HeldWarnings()
    logging.getLogger().addHandler(warnings)
    try:
        asked = arguments[0] if arguments and not arguments[0].startswith("-") else None
        if asked is not None:
            _require_known(asked)
        code = command_line(asked)(arguments or ["--help"], prog_name="hoarfrost", standalone_mode=False)
        for text in warnings.texts:
            _say(f"warning: {text}")
        return code if isinstance(code, int) else 0
    except InputError as error:
        return _refuse(str(error))
    except Interrupted as error:
        _say(str(error))
        return int(getattr(error, "exit_code", 130))
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing can or need be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno in _USER_CAN_MEND:
            return _refuse(f"{error.filename or 'output'}: {error.strerror}")
        return _report_fault(error)
    except Exception as error:
        usage = _usage(error)
        return _report_fault(error) if usage is None else _refuse(usage)
    finally:
        logging.getLogger().removeHandler(warnings)


class _HeldWarnings(logging.Handler):
    """Warnings of the log, held until the verb is done: after a refusal only its one line counts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self.texts.append(" ".join(record.getMessage().split()))


def available_verbs() -> list[Verb]:
    """The verbs whose modules this installation has."""
    return [verb for verb in VERBS if find_spec(verb.module) is not None]


def command_line(asked: str | None) -> Callable[..., object]:
    """The typer application; of the verbs only ``asked`` is real, the others are names with a line of help."""
    app = typer.Typer(
        name="hoarfrost",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for verb in available_verbs():
        command = import_module(verb.module).command if verb.name == asked else _unloaded
        app.command(verb.name, short_help=verb.help)(command)
    return app


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=lambda shown: _show_version(shown), is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Single-particle cryo-EM: from a particle stack to poses, a validated map and a report.

    Start with 'hoarfrost demo', or with 'hoarfrost abinit particles.star -o run'.
    """


def _show_version(shown: bool) -> bool:
    if shown:
        typer.echo(f"hoarfrost {__version__}")
        raise typer.Exit
    return shown


def _unloaded() -> None:
    """Stands for a verb that was not asked for."""


def _require_known(name: str) -> None:
    names = [verb.name for verb in available_verbs()]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else "hoarfrost --help lists them"
        raise InputError(f"there is no verb '{name}'; {hint}")


def _usage(error: Exception) -> str | None:
    """What is wrong with the command line, if that is what the error says.

    Such errors are click's; typer brings a copy of click in some versions and imports it in others.
    """
    if not hasattr(error, "format_message"):
        return None
    context = getattr(error, "ctx", None)
    return f"{error.format_message().rstrip(chr(46))}; see {getattr(context, 'command_path', 'hoarfrost')} --help"


def _refuse(text: str) -> int:
    _say("error: " + " ".join(text.split()))
    return 2


def _report_fault(error: BaseException) -> int:
    """A fault in hoarfrost: the traceback into a file, one line for the user."""
    if os.environ.get("HOARFROST_DEBUG"):
        traceback.print_exception(error)
        return 1
    with tempfile.NamedTemporaryFile("w", prefix="hoarfrost-", suffix=".txt", delete=False) as file:
        file.write(f"hoarfrost {__version__}: {sys.argv}\n\n")
        traceback.print_exception(error, file=file)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    _say(f"error: a fault in hoarfrost ({what[:200]}); the details are in {file.name}, please report them")
    return 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
