"""A wrong command line ends with exit 2 and one line: the option or file, the value, the fix. Nothing is written.

``MISTAKES`` holds a command line and pieces that its line must have. ``@name`` is a folder of the line; the current
folder is empty but for the file ``file``.
"""

import errno
import re
import shutil
from pathlib import Path

import pytest
from command_line import TEACHER, call, entries

from recdistill.cli import app, folders, run
from recdistill.cli.demo import check_place
from recdistill.errors import NumericalError
from reference.logs import write_ring

DISTILL = ("distill", "@prepared", "out", *TEACHER)
RANDOM = (*DISTILL, "--method", "random")
TRAIN = ("train", "@prepared", "out")

MISTAKES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # the command line itself
    "command": (("distll", "a", "b"), ('"distll"', 'Did you mean "distill"', "recdistill --help")),
    "option": (("train", "a", "b", "--modle", "x"), ("--modle", "Did you mean --model", "recdistill train --help")),
    "nothing": (("prepare",), ("prepare: SOURCE is missing", "recdistill prepare --help")),
    "no OUT": (("distill", "a"), ("distill: OUT is missing", "recdistill distill --help")),
    "one too many": (("inspect", "a", "b"), ("too many arguments: 'b'", "recdistill inspect --help")),
    "no value": (("train", "a", "b", "--model"), ("--model", "recdistill train --help")),
    "seed, word": ((*DISTILL, "--seed", "abc"), ("--seed: 'abc'", "whole number, 0 or more")),
    "seed, fraction": ((*TRAIN, "--seed", "1.5"), ("--seed: '1.5'", "whole number, 0 or more")),
    "seed, negative": (("evaluate", "a", "b", "--seed", "-1"), ("--seed: '-1'", "whole number, 0 or more")),
    "flag with a value": (("doctor", "--json=maybe"), ("--json", "maybe")),
    # prepare
    "source": (("prepare", "fil", "out"), ("fil: does not exist", "did you mean 'file'")),
    "source of nothing known": (("prepare", "file", "out"), ("file: looks like none", "pass --format")),
    "format": (("prepare", "@log.csv", "out", "--format", "tabel"), ("--format: 'tabel'", "did you mean 'table'")),
    "columns": (("prepare", "@log.csv", "out", "--columns", "user"), ("--columns: 'user'", "--columns user=VALUE")),
    "column of ours": (("prepare", "@log.csv", "out", "--columns", "usr_id=a"), ("--columns: 'usr_id'", "'user_id'")),
    "column of theirs": (
        ("prepare", "@log.csv", "out", "--columns", "user_id=who"),
        ("log.csv, line 1, column 'who'", "correct --columns user_id=who"),
    ),
    "time unit": (("prepare", "@log.csv", "out", "--time-unit", "sec"), ("--time-unit: 'sec'", "choose from s, ms")),
    "duplicates": (("prepare", "@log.csv", "out", "--duplicates", "dorp"), ("--duplicates: 'dorp'", "'drop'")),
    "repeats": (("prepare", "@log.csv", "out", "--repeats", "kep"), ("--repeats: 'kep'", "'keep'")),
    "order": (("prepare", "@log.csv", "out", "--min-order", "users"), ("--min-order: 'users'", "users-then-items")),
    "split": (("prepare", "@log.csv", "out", "--split", "tme"), ("--split: 'tme'", "did you mean 'time'")),
    "given split": (("prepare", "@log.csv", "out", "--split", "given"), ("no column 'split'", "--columns split=NAME")),
    "short users": (("prepare", "@log.csv", "out", "--short-users", "tain"), ("--short-users: 'tain'", "'train'")),
    "fractions": (
        ("prepare", "@log.csv", "out", "--split", "time", "--fractions", "0.5", "0.5", "0.5"),
        ("--fractions: (0.5, 0.5, 0.5)", "add up to 1"),
    ),
    "two fractions": (("prepare", "@log.csv", "out", "--fractions", "0.5", "0.5"), ("--fractions", "3")),
    "blocks": (("prepare", "@log.csv", "out", "--split", "blocks", "--num-blocks", "1"), ("--num-blocks: 1", "2 or")),
    "k, word": (("prepare", "@log.csv", "out", "--k-core", "five"), ("--k-core: 'five'", "whole number, 1 or more")),
    "k, zero": (("prepare", "@log.csv", "out", "--k-core", "0"), ("--k-core: '0'", "whole number, 1 or more")),
    "k, twice": (("prepare", "@log.csv", "out", "--k-core", "2", "--user-k", "3"), ("--k-core: 2", "--user-k")),
    "k, too large": (("prepare", "@log.csv", "out", "--k-core", "90"), ("leaves nothing", "largest k", "90")),
    "no ratings": (("prepare", "@log.csv", "out", "--min-rating", "3"), ("no ratings", "--columns rating=NAME")),
    "events": (("prepare", "@log.csv", "out", "--min-events", "2"), ("--min-events: 2", "3 or more")),
    "short histories": (
        ("prepare", "@log.csv", "out", "--min-events", "12"),
        ("leave-one-out needs 12", "--k-core 12", "--short-users drop"),
    ),
    "prepared from something else": (("prepare", "@other.csv", "@prepared"), ("another source", "--overwrite")),
    "prepare over another result": (("prepare", "@log.csv", "@model", "--overwrite"), ("never replaced", "another")),
    # distill
    "method": ((*DISTILL, "--method", "td4"), ("--method: 'td4'", "did you mean 'td3'")),
    "budget, one number": ((*RANDOM, "--budget", "30"), ("--budget: '30'", "such as 30x50")),
    "budget, none": ((*RANDOM, "--budget", "x"), ("--budget: 'x'", "such as 30x50")),
    "budget, three": ((*RANDOM, "--budget", "3x5x2"), ("--budget: '3x5x2'", "such as 30x50")),
    "budget, negative": ((*RANDOM, "--budget", "-3x5"), ("--budget: '-3x5'", "such as 30x50")),
    "budget, no row": ((*RANDOM, "--budget", "0x50"), ("--budget: '0x50'", "at least 1 sequence")),
    "budget, short rows": ((*RANDOM, "--budget", "30x1"), ("--budget: '30x1'", "at least 2 items")),
    "budget, short rows of td3": ((*DISTILL, "--budget", "3x3"), ("--budget: '3x3'", "at least 4 items")),
    "budget, many rows": ((*RANDOM, "--budget", "5000x5"), ("--budget: '5000x5'", "40 users", "at most 40")),
    "budget, many items": ((*RANDOM, "--budget", "40x50"), ("--budget: '40x50'", "2000 items", "ask for less")),
    "budget of no rows": ((*DISTILL, "--method", "popularity", "--budget", "3x5"), ("--budget: '3x5'", "leave it out")),
    "budget, twice": ((*RANDOM, "--budget", "3x5", "--option", "length=4"), ("--option length: 4", "--budget 3x5")),
    "option without =": ((*DISTILL, "--option", "rank"), ("--option: 'rank'", "--option rank=VALUE")),
    "option without name": ((*DISTILL, "--option", "=3"), ("--option: '=3'", "NAME=VALUE")),
    "option twice": ((*DISTILL, "--option", "rank=3", "--option", "rank=4"), ("'rank=4'", "second time")),
    "option name": (
        (*DISTILL, "--option", "rnk=3"),
        ("--option: 'rnk'", "did you mean 'rank'", "choose from num_rows"),
    ),
    "option, word": ((*DISTILL, "--option", "rank=abc"), ("--option rank: 'abc'", "valid integer", "default is 8")),
    "option, fraction": ((*DISTILL, "--option", "rank=2.5"), ("--option rank: 2.5", "valid integer")),
    "option, range": ((*DISTILL, "--option", "rank=-1"), ("--option rank: -1", "must be 1 or more")),
    "option, pair": ((*DISTILL, "--option", "pool=3"), ("--option pool: 3", "default is [5,30]")),
    "option, order": ((*DISTILL, "--option", "pool=[3,1]"), ("--option pool: (3, 1)", "first not after the last")),
    "option, choice": ((*DISTILL, "--option", "judge_items=mine"), ("--option judge_items: 'mine'", "'given'")),
    "option, name of a protocol": ((*DISTILL, "--option", "select_protocol=ful"), ("'ful'", "did you mean 'full'")),
    "option, window": ((*DISTILL, "--option", "max_inner_steps=3"), ("--option max_inner_steps: 3", "window 40")),
    "option, metric": ((*DISTILL, "--option", "select_metric=MRR@7"), ("--option select_metric: 'MRR@7'", "MRR@10")),
    "option, rate": ((*DISTILL, "--option", "outer_learning_rate=-1"), ("outer_learning_rate: -1", "above 0")),
    "pool after the teacher": (
        (*DISTILL, "--budget", "3x6", "--option", "pool=[7,9]"),
        ("--option pool: (7, 9)", "last epoch 1", "train the teacher for more epochs"),
    ),
    "rows longer than the teacher's": (
        (*RANDOM[:-1], "random_soft", "--budget", "3x9"),
        ("--budget: '3x9'", "8 items", "larger --max-seq-len"),
    ),
    "device not here": ((*DISTILL, "--device", "cuda:99"), ("--device: 'cuda:99'", "which has cpu")),
    "device": ((*DISTILL, "--device", "tpu"), ("--device: 'tpu'", "choose from cpu")),
    "teacher's model": ((*DISTILL, "--teacher-model", "sasrek"), ("--teacher-model: 'sasrek'", "'sasrec'")),
    "teacher that counts": ((*DISTILL, "--teacher-model", "popularity"), ("--teacher-model: 'popularity'", "sasrec")),
    "teacher's option": ((*DISTILL, "--teacher-option", "embed=8"), ("--teacher-option: 'embed'", "'embedding_dim'")),
    "teacher's option, word": ((*DISTILL[:3], "--teacher-option", "num_heads=two"), ("num_heads: 'two'", "integer")),
    "teacher's option, heads": (
        (*DISTILL[:3], "--budget", "3x6", "--teacher-option", "embedding_dim=7"),
        ("--teacher-option num_heads: 2", "does not divide embedding_dim 7"),
    ),
    "teacher's recipe": ((*DISTILL[:3], "--teacher-recipe", "epochs=0"), ("--teacher-recipe epochs: 0", "1 or more")),
    "teacher's recipe, name": ((*DISTILL, "--teacher-recipe", "epoch=1"), ("--teacher-recipe: 'epoch'", "'epochs'")),
    "teacher, missing": ((*DISTILL, "--teacher", "nosuch"), ("nosuch: does not exist", "--teacher must be a teacher")),
    "teacher, of another kind": ((*DISTILL, "--teacher", "@td3"), ("td3: is a distilled dataset", "--teacher must")),
    "history": ((*DISTILL[:3], "--max-seq-len", "0"), ("--max-seq-len: '0'", "1 or more")),
    "prepared, raw": (("distill", "@log.csv", "out"), ("log.csv: is a file", "recdistill prepare")),
    "prepared, missing": (("distill", "nosuch", "out"), ("nosuch: does not exist", "recdistill prepare")),
    "prepared, of another kind": (("distill", "@td3", "out"), ("td3: is a distilled dataset", "PREPARED must be")),
    "prepared, a folder": (("distill", ".", "out"), (".: is not a prepared dataset", "recdistill prepare")),
    # where results go
    "out exists": ((*DISTILL[:2], "@td3"), ("td3: exists already", "--overwrite")),
    "out is a file": ((*DISTILL[:2], "file"), ("file: is a file", "choose another name")),
    "out below a file": ((*DISTILL[:2], "file/out"), ("file/out: cannot be written", "choose another place")),
    "prepare below a file": (("prepare", "@log.csv", "file/out"), ("file/out: cannot be written", "another place")),
    "train below a file": (("train", "@td3", "file/deep/out"), ("file/deep/out: cannot be written", "another place")),
    "replace data by a model": (
        ("train", "@td3", "@td3", "--overwrite"),
        ("holds a distilled dataset", "only a model"),
    ),
    "replace anything": (
        ("train", "@td3", ".", "--overwrite"),
        ("files that recdistill did not write", "only a model"),
    ),
    "replace what is distilled": (
        (*DISTILL[:2], "@prepared", "--overwrite"),
        ("holds a prepared dataset", "only a distilled dataset", "choose another name"),
    ),
    "demo where something lies": (("demo", "--out", "."), (".: exists already", "--overwrite")),
    "demo over something": (("demo", "--out", ".", "--overwrite"), ("holds 'file'", "--out")),
    # train
    "model": ((*TRAIN, "--model", "sasrek"), ("--model: 'sasrek'", "did you mean 'sasrec'")),
    "items": ((*TRAIN, "--items", "givn"), ("--items: 'givn'", "did you mean 'given'")),
    "items of real data": ((*TRAIN, "--items", "given"), ("--items: 'given'", "needs distilled data", "use random")),
    "items of counts": (
        ("train", "@popularity", "out", "--model", "popularity", "--items", "frozen"),
        ("--items: 'frozen'", "use random"),
    ),
    "items of another width": (
        ("train", "@td3", "out", "--items", "frozen", "--option", "embedding_dim=16"),
        ("--items: '25 x 8'", "25 x 16", "--items random"),
    ),
    "nothing to learn from": (("train", "@untrained", "out"), ("--items: 'random'", "no rows", "use given")),
    "argument": ((*TRAIN, "--option", "embed=8"), ("--option: 'embed'", "did you mean 'embedding_dim'")),
    "argument, word": ((*TRAIN, "--option", "embedding_dim=abc"), ("embedding_dim: 'abc'", "default is 64")),
    "argument of none": ((*TRAIN, "--model", "popularity", "--option", "dropout=0"), ("--option: 'dropout'", "known")),
    "heads": ((*TRAIN, "--option", "num_heads=3"), ("--option num_heads: 3", "does not divide embedding_dim 64")),
    "width": ((*TRAIN, "--option", "embedding_dim=0"), ("--option embedding_dim: 0", "must be 1 or more")),
    "no heads": ((*TRAIN, "--option", "num_heads=0"), ("--option num_heads: 0", "must be 1 or more")),
    "rate": ((*TRAIN, "--option", "dropout=2"), ("--option dropout: 2", "must lie in [0, 1)")),
    "recipe": ((*TRAIN, "--recipe", "epochs=0"), ("--recipe epochs: 0", "1 or more")),
    "recipe, name": ((*TRAIN, "--recipe", "epoch=1"), ("--recipe: 'epoch'", "did you mean 'epochs'")),
    "recipe, word": ((*TRAIN, "--recipe", "learning_rate=fast"), ("--recipe learning_rate: 'fast'", "0.001")),
    "recipe, rate": ((*TRAIN, "--recipe", "learning_rate=-1"), ("--recipe learning_rate: -1", "above 0")),
    "recipe, rows": ((*TRAIN, "--recipe", "rows=window"), ("--recipe rows: 'window'", "did you mean 'windows'")),
    "recipe, objective": ((*TRAIN, "--recipe", "objective=al"), ("--recipe objective: 'al'", "'all'")),
    "valid, missing": (("train", "@td3", "out", "--valid", "nosuch"), ("nosuch: does not exist", "--valid must be")),
    "valid, other data": (
        ("train", "@td3", "out", "--valid", "@other"),
        ("other: is not the prepared dataset", "give that one"),
    ),
    "data, missing": (("train", "nosuch", "out"), ("nosuch: does not exist", "recdistill distill")),
    "data, raw": (("train", "@log.csv", "out"), ("log.csv: is a file", "recdistill prepare")),
    "data, a model": (("train", "@model", "out"), ("model: is a model", "DATA must be a distilled dataset or a prep")),
    # evaluate, inspect
    "protocol": (("evaluate", "@model", "@prepared", "--protocol", "ful"), ("--protocol: 'ful'", "'full'")),
    "part": (("evaluate", "@model", "@prepared", "--part", "tst"), ("--part: 'tst'", "did you mean 'test'")),
    "evaluate on other data": (("evaluate", "@model", "@other"), ("other: is not the prepared dataset", "give that")),
    "evaluate on distilled data": (("evaluate", "@model", "@td3"), ("td3: is a distilled dataset", "PREPARED must")),
    "evaluate no model": (("evaluate", "@td3", "@prepared"), ("td3: is a distilled dataset", "MODEL must", "train")),
    "inspect nothing": (("inspect", "nosuch"), ("nosuch: does not exist", "written by recdistill")),
    "inspect a file": (("inspect", "file"), ("file: is a file", "give a folder")),
    "inspect raw data": (("inspect", "."), (".: holds nothing that recdistill wrote", "recdistill prepare")),
}


@pytest.fixture
def occupied(here):
    """The current folder with one file in it."""
    (here / "file").write_text("hello\n")
    return here


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_names_it_and_the_fix(name, line, occupied):
    arguments, pieces = MISTAKES[name]
    before = sorted(line.folder.rglob("*"))
    result = call(*(line[word[1:]] if word.startswith("@") else word for word in arguments))
    assert result.code == 2, result
    assert result.complaint.startswith("recdistill: error: ")
    missing = [piece for piece in pieces if piece not in result.complaint]
    assert not missing, result.complaint
    assert entries(occupied) == ["file"]
    assert sorted(line.folder.rglob("*")) == before


def test_no_message_names_an_option_that_is_not_there(line, occupied):
    """Every --word of every message above is an option of the command that said it."""
    for arguments, _ in MISTAKES.values():
        if arguments[0] not in app:
            continue
        options = {name for entry in app[arguments[0]].assemble_argument_collection() for name in entry.names}
        complaint = call(*(line[word[1:]] if word.startswith("@") else word for word in arguments)).complaint
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", complaint)) - set(arguments)
        assert named <= options | {"--help"}, complaint


def test_a_mistake_of_the_budget_is_told_before_the_teacher_is_trained(line, here, monkeypatch):
    monkeypatch.setenv("RECDISTILL_CACHE", str(here / "cache"))
    for arguments in (("--budget", "41x2"), ("--method", "most_recent", "--budget", "99x9"), ("--option", "rank=0")):
        assert call("distill", line["prepared"], "out", *TEACHER, *arguments).code == 2
    assert entries(here) == []


def test_most_recent_without_a_clock(line, here, monkeypatch):
    monkeypatch.setenv("RECDISTILL_CACHE", str(here / "cache"))
    arguments = ("--method", "most_recent", "--budget", "3x6")
    complaint = call("distill", line["clockless"], "out", *TEACHER, *arguments).complaint
    assert "--method: 'most_recent' needs timestamps, and log has only an order" in complaint
    assert entries(here) == []


def test_a_folder_that_cannot_be_written(line, here, monkeypatch):
    def refuse(**options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(folders.tempfile, "TemporaryDirectory", refuse)
    complaint = call("train", line["td3"], here / "out").complaint
    assert complaint.startswith(f"recdistill: error: {here / 'out'}: cannot be written")
    assert "Permission denied" in complaint
    assert entries(here) == []


def test_a_file_that_vanishes_is_exit_2_in_one_line(line, here, monkeypatch):
    def vanished(*arguments: object, **options: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "somewhere/a.npy")

    monkeypatch.setattr("recdistill.cli.train.material_of", vanished)
    result = call("train", line["td3"], "out")
    assert result.code == 2
    assert "error: somewhere/a.npy: No such file or directory; check the path" in result.complaint


def test_a_full_disk_is_exit_1_in_one_line(line, here, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(here / "out"))

    monkeypatch.setattr("recdistill.cli.train.save_model", full)
    result = call("train", line["td3"], "out", "--recipe", "epochs=1")
    assert result.code == 1
    assert f"failed: {here / 'out'}: No space left on device" in result.complaint
    assert entries(here) == []


def test_a_number_that_is_no_number_is_exit_1_in_one_line(line, here, monkeypatch):
    def diverge(*arguments: object, **options: object) -> None:
        raise NumericalError("the loss is nan", stage="training sasrec", step=7, cause="lower\nthe rate")

    monkeypatch.setattr("recdistill.cli.train.train_student", diverge)
    result = call("train", line["td3"], "out")
    assert result.code == 1
    assert result.complaint == "recdistill: failed: training sasrec, step 7: the loss is nan; lower the rate"
    assert entries(here) == []


def test_a_defect_is_not_hidden(line, here, monkeypatch):
    monkeypatch.setattr("recdistill.cli.inspect.size_in_bytes", lambda folder: {})
    with pytest.raises(KeyError):
        run(["inspect", str(line["td3"])])


def test_the_first_bad_line_of_a_raw_file_is_named(here):
    path = write_ring(here / "bad.csv")
    path.write_text(path.read_text() + "u1,i1,soon\n")
    last = len(path.read_text().splitlines())
    complaint = call("prepare", "bad.csv", "out").complaint
    assert f"bad.csv, line {last}, column 'timestamp': timestamp 'soon' is not a number; write seconds" in complaint
    assert entries(here) == ["bad.csv"]


def test_a_demo_that_was_broken_off_may_be_repeated(here, monkeypatch):
    monkeypatch.setattr("recdistill.cli.demo.run_demo", None)  # it is not to be called
    (here / "d" / "raw").mkdir(parents=True)
    (here / "d" / "raw" / "interactions.parquet").write_text("half")
    check_place(Path("d"), overwrite=True)
    (here / "d" / "raw" / "diary.txt").write_text("mine")
    assert "holds 'diary.txt'" in call("demo", "--out", "d", "--overwrite").complaint
    shutil.rmtree(here / "d" / "raw")
    (here / "d" / "td3").mkdir()
    (here / "d" / "td3" / "notes").write_text("mine")
    assert "did not write" in call("demo", "--out", "d", "--overwrite").complaint
