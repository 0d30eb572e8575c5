"""Progress and printing: on a terminal, in a file, into a pipe that closes, and with names from hell."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_io.command_line import printing
from alexnet_io.run.progress import Progress, duration

TRAINING = """
import sys, time
from alexnet_io.run.progress import Progress
with Progress(3000) as progress:
    for step in range(1, 3001):
        progress.update(step, epoch=step / 1000, loss=2.3, top1=0.5, images_per_second=812.4)
        if step % 1000 == 0:
            progress.message("epoch %d: [bold]test[/bold] 99%%" % (step // 1000))
            print("from elsewhere", flush=True)
print("training went on to its end", file=sys.stderr)
"""


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(code: str, *arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def on_a_terminal(code: str, **environment: str) -> tuple[int, str, str]:
    """Runs `code` with standard output on a pseudo-terminal; the exit code, what it showed, and stderr."""
    master, slave = pty.openpty()
    child = run(code, stdout=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment})
    os.close(slave)
    shown = b""
    try:
        while True:
            shown += os.read(master, 65536)
    except OSError:  # EIO: the other side has closed
        pass
    finally:
        os.close(master)
    _, errors = child.communicate(timeout=300)
    return child.returncode, shown.decode("utf-8", "replace"), errors.decode()


def test_plain_lines_come_at_sensible_intervals():
    clock, stream = Clock(), io.StringIO()
    with Progress(36_000, stream=stream, clock=clock) as progress:
        for step in range(1, 36_001):
            progress.update(step, epoch=step / 400, loss=1.5, top1=0.123, images_per_second=1234.5)
            clock.now += 1
    lines = stream.getvalue().splitlines()
    assert 50 < len(lines) < 250  # ten hours
    assert lines[0] == "step 1/36000  epoch 0.00  loss 1.5000  top-1 12.3%  1,234 images/s"
    assert lines[1] == "step 6/36000  epoch 0.01  loss 1.5000  top-1 12.3%  1,234 images/s  9h 59m left"
    assert lines[-1] == "step 36000/36000  epoch 90.00  loss 1.5000  top-1 12.3%  1,234 images/s  took 9h 59m"


def test_time_left_does_not_count_the_compiler_nor_the_steps_before_a_resume():
    clock, stream = Clock(), io.StringIO()
    progress = Progress(1000, start=900, stream=stream, clock=clock)
    clock.now += 600  # compiling
    progress.update(901)
    clock.now += 9
    progress.update(910)
    assert stream.getvalue().splitlines()[-1] == "step 910/1000  1m 30s left"


def test_in_a_file_every_line_is_plain_text(tmp_path):
    with open(tmp_path / "log", "wb") as log:
        child = run(TRAINING, stdout=log)
        _, errors = child.communicate(timeout=300)
    text = (tmp_path / "log").read_text()
    assert (child.returncode, errors) == (0, b"training went on to its end\n")
    assert "\x1b" not in text
    assert "\r" not in text
    assert "epoch 2: [bold]test[/bold] 99%" in text
    assert text.count("from elsewhere\n") == 3
    assert "step 3000/3000" in text


def test_on_a_terminal_there_is_a_bar_and_messages_stay_above_it():
    code, shown, errors = on_a_terminal(TRAINING)
    assert (code, errors) == (0, "training went on to its end\n")
    assert "3000/3000" in shown
    assert "━" in shown
    assert "812 images/s" in shown
    assert "epoch 2: [bold]test[/bold] 99%" in shown
    assert shown.count("from elsewhere") == 3
    assert "\x1b[?25h" in shown  # the cursor is shown again


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"PYTHONIOENCODING": "ascii"}, {"NO_COLOR": "1"}, {"COLUMNS": "20"}],
    ids=lambda environment: "-".join(environment),
)
def test_poor_terminals_are_served_too(environment):
    code, shown, errors = on_a_terminal(TRAINING, **environment)
    assert (code, errors) == (0, "training went on to its end\n")
    assert "3000/3000" in shown or environment.get("COLUMNS") == "20"
    if environment.get("TERM") == "dumb":
        assert "\x1b" not in shown


@pytest.mark.parametrize("kind", ["lines", "bar"])
def test_training_goes_on_in_silence_when_its_reader_leaves(kind):
    """As in `train | head -1`."""
    code = TRAINING if kind == "lines" else TRAINING.replace("(3000)", "(3000, terminal=True)")
    child = run(code)
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.read(10)
    child.stdout.close()
    assert child.stderr.read() == b"training went on to its end\n"
    assert child.wait(timeout=300) == 0
    child.stderr.close()


def test_training_goes_on_in_silence_when_its_terminal_hangs_up():
    master, slave = pty.openpty()
    child = run(TRAINING.replace("progress.update", "time.sleep(0.0003); progress.update"), stdout=slave)
    os.close(slave)
    os.read(master, 10)
    os.close(master)
    _, errors = child.communicate(timeout=300)
    assert (child.returncode, errors) == (0, b"training went on to its end\n")


def test_training_goes_on_in_silence_when_the_disk_of_its_log_is_full():
    with open("/dev/full", "wb") as full:
        child = run(TRAINING, stdout=full)
        _, errors = child.communicate(timeout=300)
    assert (child.returncode, errors) == (0, b"training went on to its end\n")


def test_training_goes_on_without_any_standard_output():
    code = "import sys; sys.stdout = None\n" + TRAINING
    child = run(code.replace('print("from elsewhere", flush=True)', ""))
    _, errors = child.communicate(timeout=300)
    assert (child.returncode, errors) == (0, b"training went on to its end\n")


def test_a_command_ends_quietly_when_its_reader_leaves():
    code = (
        "from alexnet_io.command_line.printing import tolerant_output\n"
        "with tolerant_output():\n"
        "    for line in range(100_000):\n"
        "        print('prediction', line)\n"
    )
    child = run(code)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(timeout=300) == printing.BROKEN_PIPE_EXIT == 141
    child.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a disk without space")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["summary"], ["summary", "--help"]])
def test_a_command_says_that_its_output_found_no_space(words, unbuffered):
    """Found at once, or at the last flush."""
    command = [sys.executable, "-m", "jax_alexnet", *words]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        child = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    said = "error: standard output can't be written: No space left on device. Put that right, or send it elsewhere\n"
    assert (child.returncode, child.stderr) == (1, said)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_file_names_that_are_not_utf8_can_be_printed(encoding):
    code = (
        "import sys\n"
        "from alexnet_io.command_line import printing\n"
        "from alexnet_io.run.progress import Progress\n"
        "name = sys.argv[1]\n"
        "printing.say(printing.printable(name))\n"
        "printing.say(name)\n"
        "with Progress(1) as progress: progress.message(name)\n"
        "with Progress(1, terminal=True) as progress: progress.message(name)\n"
        "with printing.tolerant_output():\n"
        "    print(name)\n"
        "    print(name, file=sys.stderr)\n"
    )
    child = run(code, os.fsdecode(b"caf\xe9 \xe6\x97\xa5.jpg"), env={**os.environ, "PYTHONIOENCODING": encoding})
    out, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    shown = "日" if encoding == "utf-8" else "\\u65e5"
    assert out.decode(encoding).splitlines()[0] == f"caf\\xe9 {shown}.jpg"
    assert len(out.decode(encoding).splitlines()) >= 5


def test_printable_names_keep_what_can_be_read_and_escape_what_cannot():
    assert printing.printable("Ångström 日本 👩‍🔬.png") == "Ångström 日本 👩‍🔬.png"
    assert printing.printable(os.fsdecode(b"\xff\x80")) == r"\xff\x80"
    assert printing.printable("a\nb\tc\x1b[31m\x7f\x9b") == r"a\nb\tc\x1b[31m\x7f\x9b"
    assert printing.printable("exe.\u202egnp\ud800\u2028") == r"exe.\u202egnp\ud800\u2028"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0s"),
        (59.4, "59s"),
        (59.6, "1m 00s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (11_220, "3h 07m"),
        (187_200, "2d 04h"),
    ],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
