"""The command line. It parses, chooses by name, draws progress and prints; it holds no logic of its own.

Exit codes: 0 done; 2 the input was wrong (one line on standard error says where, what and how to mend it); 3 a
certificate does not hold; 1 anything else. Results go to standard output, progress and messages to standard error.
"""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import recdistill
from recdistill.cli import (
    certify,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    inspect,
    plan,
    prepare,
    report,
    stream,
    train,
    verify,
)
from recdistill.cli.messages import one_line, say, spoken_warnings, wrong_path, wrong_usage
from recdistill.errors import InputError, RecdistillError, VerificationError

CONTINUED = {
    "distill": "repeat the command with --resume to continue where it stopped",
    "train": "repeat the command with --resume to continue where it stopped",
    "stream": "the memory is as it was; repeat the command to continue",
    "certify": "finished trainings are kept; repeat the command to continue",
}
"""What may be done after an interruption, where more is left than nothing."""
BAD_PATHS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
LINE = """A first look, about two minutes: recdistill demo

Every command explains itself: recdistill COMMAND --help

The straight line:

| recdistill prepare RAW PREPARED
| recdistill distill PREPARED SUMMARY --method td3 --budget 30x50
| recdistill train SUMMARY MODEL --items given --valid PREPARED
| recdistill evaluate MODEL PREPARED
| recdistill certify SUMMARY PREPARED"""

app = App(
    name="recdistill",
    help="Dataset distillation for recommender systems: a log becomes a tiny dataset that models train on in seconds.",
    help_epilogue=LINE,
    version=recdistill.__version__,
    help_format="restructuredtext",
    suppress_keyboard_interrupt=False,
)
app.command(demo.demo, sort_key=0, help_epilogue="")
app.command(prepare.prepare, sort_key=1, help_epilogue=prepare.EPILOGUE)
app.command(plan.plan, sort_key=2, help_epilogue=plan.EPILOGUE)
app.command(distill.distill, sort_key=3, help_epilogue=distill.EPILOGUE)
app.command(train.train, sort_key=4, help_epilogue=train.EPILOGUE)
app.command(evaluate.evaluate, sort_key=5, help_epilogue="")
app.command(certify.certify, sort_key=6, help_epilogue=certify.EPILOGUE)
app.command(verify.verify, sort_key=7, help_epilogue="")
app.command(report.report, sort_key=8, help_epilogue="")
app.command(inspect.inspect, sort_key=9, help_epilogue="")
app.command(stream.stream, sort_key=10, help_epilogue=stream.EPILOGUE)
app.command(export.export, sort_key=11, help_epilogue="")
app.command(doctor.doctor, sort_key=12, help_epilogue="")


def run(arguments: Sequence[str]) -> int:
    """Return the exit code of one command line."""
    command = next(iter(arguments), "")
    try:
        with spoken_warnings():
            code = app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        known = f"{command} " if command in app else ""
        say(f"error: {one_line(wrong_usage(error))} (see: recdistill {known}--help)")
        return 2
    except InputError as error:
        say(f"error: {one_line(str(error))}")
        return 2
    except VerificationError as error:
        say(f"does not hold: {one_line(str(error))}")
        return 3
    except RecdistillError as error:
        say(f"failed: {one_line(str(error))}")
        return 1
    except KeyboardInterrupt:
        say(f"interrupted; {CONTINUED.get(command, 'nothing half-written is left')}")
        return 1
    except BrokenPipeError:
        _close_output()
        return 1
    except OSError as error:
        bad = isinstance(error, BAD_PATHS)
        say(f"{'error' if bad else 'failed'}: {one_line(wrong_path(error))}")
        return 2 if bad else 1
    return code if isinstance(code, int) else 0


def _close_output() -> None:
    """Send what is still to be printed nowhere: the reader of the pipe has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """Run the command line of this process."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _close_output()
    sys.exit(code)
