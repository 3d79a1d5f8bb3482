"""Progress of a command: the finished work, the elapsed time and the time left."""

import io
import re
from collections.abc import Mapping

import pytest

from cai_base import progress
from cai_base.progress import Outlook, Pace, Progress, duration, in_minutes, time_left, wrapped


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_time_left_is_estimated_from_the_last_minute(clock: Clock) -> None:
    pace = Pace(total=200)
    clock.now = 100.0
    pace.advance(1)  # the model warms up
    for _ in range(70):
        clock.now += 1.0
        pace.advance(1)
    assert pace.left() == pytest.approx(129, rel=0.02)


def test_time_left_is_steady_with_batches_of_unequal_size(clock: Clock) -> None:
    """A large and a small batch of samples in turns, each as long: 300 answers in 200 seconds, 12 times."""
    pace = Pace(total=12 * 300)
    ends = []
    for number in range(24):
        clock.now += 100.0
        pace.advance(50 if number % 2 else 250)
        ends.append(clock.now + (pace.left() or 0.0))
    assert clock.now == 2400
    assert all(2200 < end < 2600 for end in ends[6:])


def test_work_of_an_earlier_process_does_not_count_in_the_speed(clock: Clock) -> None:
    pace = Pace(total=100, done=90)
    clock.now = 10.0
    pace.advance(5)
    assert pace.left() == pytest.approx(10)


def test_time_left_counts_down_between_updates_that_are_minutes_apart(clock: Clock) -> None:
    pace = Pace(total=4)
    assert pace.left() is None
    assert pace.in_words() == "elapsed 0:00"
    for _ in range(2):
        clock.now += 300.0
        pace.advance(1)
    assert pace.left() == pytest.approx(600)
    clock.now += 200.0
    assert pace.left() == pytest.approx(400)
    assert pace.in_words() == "elapsed 13:20, about 6:40 left"
    clock.now += 500.0  # the third update was expected 400 seconds ago
    assert pace.left() == pytest.approx(400)
    assert pace.in_words() == "elapsed 21:40, about 6:40 left"


def test_a_slow_last_unit_is_never_about_to_end(clock: Clock) -> None:
    pace = Pace(total=20)
    for _ in range(19):
        clock.now += 1.0
        pace.advance(1)
    said = []
    for _ in range(60):
        clock.now += 1.0
        said.append(pace.in_words())
    assert not [words for words in said if "0:00 left" in words]
    assert said[-1] == "elapsed 1:19, about 0:59 left"


def test_units_that_arrive_in_batches_are_not_late_between_two_batches(clock: Clock) -> None:
    pace = Pace(total=100)
    for _ in range(3):
        clock.now += 30.0
        for _ in range(20):
            pace.advance(1)
    clock.now += 20.0
    assert pace.left() == pytest.approx(40, rel=0.3)


def test_a_pipe_gets_a_line_every_ten_seconds_and_one_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(stream).bar("revision", 40, unit="texts") as bar:
        for _ in range(40):
            clock.now += 1.0
            bar.advance(1)
    assert stream.getvalue().splitlines() == [
        "revision: 10 of 40 texts, elapsed 0:10, about 0:30 left",
        "revision: 20 of 40 texts, elapsed 0:20, about 0:20 left",
        "revision: 30 of 40 texts, elapsed 0:30, about 0:10 left",
        "revision: 40 of 40 texts, done in 0:40",
    ]


def test_a_bar_in_a_terminal_labels_elapsed_time_and_time_left(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with Progress(stream).bar("revision", 4) as bar:
        clock.now = 12.0
        bar.advance(1)
        clock.now = 13.0
    assert "elapsed 0:13, about 0:35 left" in stream.getvalue()


def test_a_bar_says_the_time_left_for_the_whole_the_newest_values_and_the_speed(clock: Clock) -> None:
    stream, tokens = io.StringIO(), 100
    progress = Progress(stream)
    progress.follow(Outlook({"sft": 40.0, "dpo": 200.0}, lambda: {"sft": clock.now}), lambda: tokens)
    with progress.bar("sft", 4) as bar:
        clock.now, tokens = 20.0, 2100
        bar.advance(2, "loss 0.693")  # half of sft in 20 seconds, as was expected
    assert (
        stream.getvalue()
        == "sft: 2 of 4, elapsed 0:20, about 0:20 left; whole run: about 3:40 left; loss 0.693; 100 tokens/s\n"
    )


def test_a_bar_shows_the_newest_result_of_the_run(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    with progress.bar("dpo", 4) as bar:
        progress.standing = "attack success rate 41.7 % (cai)"
        clock.now = 20.0
        bar.advance(2, "loss 0.693")
    assert (
        stream.getvalue()
        == "dpo: 2 of 4, elapsed 0:20, about 0:20 left; loss 0.693; attack success rate 41.7 % (cai)\n"
    )


def test_a_bar_in_a_narrow_terminal_breaks_between_statements(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    progress = Progress(stream)
    with progress.bar("dpo", 4) as bar:
        progress.standing = "attack success rate 41.7 % (cai)"
        clock.now = 20.0
        bar.advance(2, "loss 0.693, margin 0.012")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = [line.strip() for line in shown.splitlines()]
    assert any(line.endswith("2/4 elapsed 0:20, about 0:20 left") for line in lines)
    assert "loss 0.693, margin 0.012" in lines
    assert "attack success rate 41.7 % (cai)" in lines


def test_work_that_was_done_before_is_not_said_to_be_done_in_no_time(clock: Clock) -> None:
    assert Pace(total=40, done=40).in_words() == "done before"
    pace = Pace(total=40, done=30)
    clock.now = 5.0
    pace.advance(10)
    assert pace.in_words() == "done in 0:05"


def test_a_phase_at_work_sets_the_time_left_of_the_run_by_its_own_pace() -> None:
    forecast = {"sft": 170.0, "revision": 220.0, "dpo": 3000.0, "evaluation": 100.0}
    seconds = {"sft": 110.0, "revision": 1050.0, "evaluation": 80.0}
    begun = {"sft": 1.0, "revision": 1.0, "evaluation": 0.8}
    assert (time_left(forecast, begun, seconds) or 0.0) > 6000, "dpo has not begun, and the others were slow"
    half = time_left(forecast, begun | {"dpo": 0.5}, seconds | {"dpo": 200.0})
    assert half == pytest.approx(200 + 20, rel=0.15), "half of dpo, and a fifth of the evaluations"
    assert time_left(forecast, dict.fromkeys(forecast, 1.0), seconds) == 0
    assert time_left({}, begun, seconds) is None


def test_what_no_share_is_known_of_is_done_before_a_part_that_has_begun_and_else_left_by_its_time() -> None:
    forecast = {"sft": 100.0, "feedback-responses": 500.0, "feedback": 200.0}
    assert time_left(forecast, {"sft": 1.0, "feedback": 0.5}, {"sft": 100.0, "feedback": 100.0}) == pytest.approx(100)
    spent = {"sft": 100.0, "feedback-responses": 9.0}
    assert time_left(forecast, {"sft": 1.0}, spent) == 491.0 + 200.0


def test_a_phase_is_done_in_its_own_time_without_the_evaluations_in_it(clock: Clock) -> None:
    seconds = {"dpo": 30.0}  # of an earlier process
    pace = Pace(4, 2, "dpo", Outlook({}, lambda: seconds))
    for _ in range(2):
        clock.now += 100.0  # of which 90 are an evaluation's
        seconds["dpo"] += 10.0
        pace.advance(1)
        assert pace.finished or pace.in_words().startswith("elapsed 0:40, about 0:10 left")
    clock.now, seconds["dpo"] = 500.0, 60.0
    assert pace.in_words() == "done in 0:50"


def test_other_processes_are_told_of_the_shares_every_few_seconds(clock: Clock) -> None:
    notes: list[tuple[Mapping[str, float], Mapping[str, float]]] = []
    outlook = Outlook({}, lambda: {"dpo": clock.now}, lambda *note: notes.append(note))
    for second in range(1, 12):
        clock.now = float(second)
        outlook.note("dpo", second / 20)
    assert notes == [({"dpo": 0.25}, {"dpo": 5.0}), ({"dpo": 0.5}, {"dpo": 10.0})]
    assert outlook.left() is None, "a short run has no forecast"


def test_texts_to_be_looked_at_are_shown_in_a_terminal_alone_and_not_too_often(clock: Clock) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for shown in (Progress(terminal), Progress(pipe)):
        for second in (0.0, 10.0, 40.0):
            clock.now = second
            shown.show(f"text at {second:.0f}")
    assert terminal.getvalue().splitlines() == ["text at 0", "text at 40"]
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (90, "1:30"), (3599, "59:59"), (3725, "1:02:05"), (1e6, "277:46:40")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(20, "1 min"), (2119, "35 min"), (3599, "1 h 0 min"), (3900, "1 h 5 min")]
)
def test_an_estimate_is_in_minutes(seconds: float, text: str) -> None:
    assert in_minutes(seconds) == text


def test_a_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Progress.quiet()
    quiet.say("Loading")
    with quiet.bar("revision", 10) as bar:
        bar.advance(10)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_breaks_lines_between_words_and_keeps_a_path_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    path = "/".join(["folder"] * 10)
    text = f"stopped at a place that is far away; continue with: cai-base resume {path}"
    stream = Terminal()
    Progress(stream).say(text)
    lines = stream.getvalue().splitlines()
    assert path in lines
    assert all(len(line) <= 40 for line in lines if line != path)
    assert " ".join(lines) == text
    assert wrapped(text, io.StringIO()) == text
