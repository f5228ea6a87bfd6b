"""The command line. It parses, chooses by name, draws progress and prints; it holds no logic of its own.

Exit codes: 0 done; 2 the input was wrong (one line on standard error says where, what and how to mend it); 1 anything
else. Results go to standard output, progress and messages to standard error.
"""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import recdistill
from recdistill.cli import demo, distill, doctor, evaluate, inspect, prepare, train
from recdistill.cli.messages import one_line, say
from recdistill.errors import InputError, RecdistillError

app = App(
    name="recdistill",
    help="Dataset distillation for recommender systems.",
    version=recdistill.__version__,
    help_format="plaintext",
)
for command in (
    demo.demo,
    prepare.prepare,
    distill.distill,
    train.train,
    evaluate.evaluate,
    inspect.inspect,
    doctor.doctor,
):
    app.command(command)


def run(arguments: Sequence[str]) -> int:
    """Return the exit code of one command line."""
    try:
        code = app(
            list(arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        say(f"error: {one_line(str(error))} (see: recdistill {_command(arguments)}--help)")
        return 2
    except InputError as error:
        say(f"error: {one_line(str(error))}")
        return 2
    except RecdistillError as error:
        say(f"failed: {one_line(str(error))}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; repeat the command with --resume to continue where it stopped")
        return 1
    except BrokenPipeError:
        return 1
    return code if isinstance(code, int) else 0


def _command(arguments: Sequence[str]) -> str:
    first = next(iter(arguments), "")
    return f"{first} " if first in app else ""


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))
