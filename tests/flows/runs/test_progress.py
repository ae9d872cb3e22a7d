"""What a person sees of a run under way: which phase a pair is in, its pace, and the time left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from crosstie.flows.registration.phases import Phase
from crosstie.flows.runs.in_words import counted, time_span
from crosstie.flows.runs.pace import PairPace
from crosstie.flows.runs.progress import report_run_to, run_listener, shortened
from crosstie.flows.runs.tally import Tally

PAIR = "S2A_MSIL1C_20250601T105031_N0511_R051_T31UFS__S1A_IW_GRDH_1SDV_20250602T055005_059437"


def test_a_pair_tells_its_phase_and_in_the_tiles_its_pace() -> None:
    pace = PairPace()
    assert pace.text(0.0) == "plan"
    pace.begin(Phase.SEARCH, now_s=2.0)
    pace.count_tiles(0, 1521)
    assert pace.text(3.0) == "search"
    pace.begin(Phase.TILES, now_s=10.0)
    assert pace.text(10.0) == "tiles 0 of 1,521"
    pace.count_tiles(600, 1521)
    assert pace.text(12.0) == "tiles 600 of 1,521, 300 tiles/s, 3 s left"  # 921 at 300 a second
    pace.begin(Phase.FIT, now_s=20.0)
    assert pace.text(20.0) == "fit"


def test_a_pair_that_is_tried_again_begins_again() -> None:
    pace = PairPace()
    pace.begin(Phase.TILES, now_s=0.0)
    pace.count_tiles(50, 100)
    pace.begin(Phase.PLAN, now_s=30.0)
    assert (pace.done, pace.planned, pace.text(31.0)) == (0, 0, "plan")
    pace.begin(Phase.TILES, now_s=40.0)
    pace.count_tiles(10, 100)
    assert pace.text(45.0).endswith("2.0 tiles/s, 45 s left")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7800, "2 h 10 min")]
)
def test_a_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert time_span(seconds) == said


def test_counts_are_singular_for_one_alone() -> None:
    assert [counted(n, "tile") for n in (0, 1, 2, 1521)] == ["0 tiles", "1 tile", "2 tiles", "1,521 tiles"]


def test_a_long_name_keeps_both_ends() -> None:
    short = shortened(PAIR, 26)
    assert len(short) == 26
    assert short.startswith("S2A_MSIL1C_2")
    assert short.endswith("59437")
    assert shortened("s1_vh.tif", 26) == "s1_vh.tif"


def walk() -> None:
    told = run_listener()
    told.phase(PAIR, Phase.PLAN)
    told.tiles(PAIR, 0, 1)
    for phase in (Phase.SEARCH, Phase.TILES):
        told.phase(PAIR, phase)
    told.tiles(PAIR, 1, 1)
    told.phase(PAIR, Phase.WRITE)
    told.finished(PAIR, "corrected")


def test_a_log_gets_a_line_when_a_pair_begins_and_one_when_it_ends() -> None:
    log = io.StringIO()
    with report_run_to(Console(file=log, width=80), before="finding pairs"):
        walk()
    assert log.getvalue() == f"{PAIR}: 1 tile to match\n{PAIR}: corrected\n"


def test_a_terminal_of_80_columns_shows_every_phase_on_one_line() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    seen = []
    with report_run_to(console, before="finding pairs"):
        told = run_listener()
        told.run(Tally())
        for phase in Phase:
            told.phase(PAIR, phase)
            if phase is Phase.TILES:
                told.tiles(PAIR, 400, 1521)
            live = console._live_stack[-1] if hasattr(console, "_live_stack") else console._live
            lines = console.render_lines(live.get_renderable())
            seen.append(["".join(part.text for part in line) for line in lines])
    for phase, lines in zip(Phase, seen, strict=True):
        assert len(lines) == 2, lines  # the run, and the pair: nothing is folded
        assert str(phase) in lines[1]
    assert "tiles/s" in seen[list(Phase).index(Phase.TILES)][1]
