"""The terminal's table, the headline, and which texts are chosen to be read."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.text import Annotation

from cai_base.evaluation.tasks.prompts import METRICS
from cai_base.records import Chain, Results, Round, Verdict
from cai_base.report import examples as chosen
from cai_base.report import figures
from cai_base.report.headline import headline
from cai_base.report.load import StoredRun, load
from cai_base.report.notes import notes
from cai_base.report.numbers import RATE, number, p_value
from cai_base.report.plotting import Sheet, label_ends, rate_axis
from cai_base.report.table import next_commands, render, summary
from cai_base.report.tables import comparison_table
from cai_base.text import command_on, one_line, resume_command

from .conftest import MakeRun


@pytest.fixture(scope="module")
def stored(run: Path) -> StoredRun:
    return load(run)


def test_the_table_has_the_figures_side_by_side(run: Path, stored: StoredRun) -> None:
    text = render(run)
    lines = text.splitlines()
    names = [line.split("  ")[0] for line in lines]
    place = names.index("Attack success rate (%)")  # in one line, though a mark in the row below leaves less space
    assert "Over-refusal rate (%)" in names[place + 1 : place + 3]
    for arm in ("sft", "cai", "base"):
        assert f"{100 * stored.results.arms[arm]['attack_success_rate'].mean or 0.0:.1f}" in lines[place]
    assert "SFT-only" in text
    assert "role-play" in text
    assert "direct (apart)" in text
    assert "preference pairs; filtered:" in text
    assert "model organism" in text
    assert "95 % confidence intervals over seeds and over prompts of these kinds and families" in " ".join(text.split())
    assert "That Full CAI is at most 0.25 less helpful than SFT-only (non-inferiority) is not shown" in " ".join(
        text.split()
    )
    assert "To detect 5.0 points you need" in " ".join(text.split())
    assert "\x1b" not in text


def test_a_line_never_leaves_the_width(make_run: MakeRun) -> None:
    text = render(make_run(seeds=3, arms="sft,cai,sl-cai"))
    assert max(map(len, text.splitlines())) <= 120
    assert "Base model" in text


def test_no_line_begins_with_the_sign_of_a_rate(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in range(80, 121):
        monkeypatch.setattr("cai_base.report.table.PIPE_WIDTH", width)
        text = render(run)
        assert " %" in text
        assert [line for line in text.splitlines() if line.startswith("%")] == []


@pytest.mark.parametrize("width", [44, 60, 80, 100])
def test_a_narrow_terminal_gets_every_column(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr("cai_base.report.table.PIPE_WIDTH", width)
    run = make_run(seeds=3, arms="sft,cai,sl-cai")
    text = render(run)
    assert max(map(len, text.splitlines())) <= width
    results = load(run).results
    for arm in results.arms.values():
        attack = arm["attack_success_rate"]
        assert f"{100 * (attack.mean or 0.0):.1f}" in text
        low, high = attack.ci95 or (0.0, 0.0)
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in text
    assert "Base model" in text


def test_an_instruct_model_stands_beside_the_trained_arms(make_run: MakeRun) -> None:
    run = make_run(seeds=2, arms="sft,cai,instruct")
    stored, text = load(run), render(run)
    assert stored.trained_arms == ["sft", "cai"]
    assert "Instruct" in text
    assert (stored.results.comparisons["cai - instruct"]["attack_success_rate"].difference or 0.0) > 0
    assert any("Instruct" in row.name for row in comparison_table(stored.results).rows)


def test_warnings_come_first(make_run: MakeRun) -> None:
    run = make_run(seeds=1, warnings=("clipped\x1b[31m",), helpful=True)
    assert render(run).startswith("warning: clipped\\x1b[31m\n")


def test_the_end_of_a_run_does_not_repeat_the_warning_about_its_plan(make_run: MakeRun) -> None:
    run = make_run(seeds=1, warnings=("preflight, power warned: few prompts", "preflight, disk warned: little is free"))
    assert "little is free" in summary(run)
    assert "few prompts" not in summary(run)
    assert "few prompts" in render(run)


def test_the_end_of_a_run_offers_rounds_only_where_there_are_chains(
    run: Path, stored: StoredRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ", revision by round" in next_commands(run)
    none = stored.results.revision.model_copy(update={"chains": 0})
    without = replace(stored, results=stored.results.model_copy(update={"revision": none}))
    monkeypatch.setattr("cai_base.report.table.load", lambda _: without)
    assert "revision by round" not in next_commands(run)


def test_a_note_of_the_engine_made_during_the_run_is_a_warning(make_run: MakeRun) -> None:
    assert "warning: it runs padded\n" in render(make_run(seeds=1, notes=("it runs padded",)))


@pytest.mark.parametrize(("seeds", "quantile"), [(2, "12.7"), (3, "4.3"), (4, None)])
def test_a_run_of_few_seeds_says_why_its_intervals_are_wide(
    make_run: MakeRun, seeds: int, quantile: str | None
) -> None:
    (note,) = [one for one in notes(load(make_run(seeds=seeds)).results) if one.startswith("Brackets")]
    assert note.endswith(f"the t quantile is {quantile}, with ten seeds 2.3." if quantile else "by seed and prompt.")


def test_one_seed(make_run: MakeRun) -> None:
    text = render(make_run(seeds=1))
    assert "One seed. Brackets: 95 % Clopper-Pearson intervals over prompts" in " ".join(text.split())


def test_unscored(make_run: MakeRun) -> None:
    text = render(make_run(judged=False))
    assert "every answer is unscored" in text
    assert "Not known without a judge: Attack success rate" in text
    assert "Attack success rate (%)" not in text
    assert "only 0 of 144 answers to jailbreak prompts were scored" in text
    assert "role-play" not in text


def test_a_failed_seed_is_named(make_run: MakeRun) -> None:
    assert "warning: seed 1 failed in dpo: diverged" in render(make_run(lost={1: "diverged"}))


def test_every_seed_failed(make_run: MakeRun) -> None:
    run = make_run(seeds=2, lost={0: "diverged", 1: "diverged"})
    assert "There is no result for Full CAI" in render(run)
    assert figures.draw(load(run))
    assert chosen.answers(load(run)) == []


def test_a_failed_seed_is_missing_from_the_coverage(make_run: MakeRun) -> None:
    text = render(make_run(seeds=3, lost={1: "diverged"}))
    assert "(48 of 72 scored)" in text
    assert "48 of 72 worst case" in " ".join(text.split())


def test_a_curve_is_over_the_seeds_that_finished_at_every_step(make_run: MakeRun) -> None:
    results = load(make_run(seeds=3, lost={1: "diverged"})).results.dump()
    sft, cai = (results["arms"][arm]["attack_success_rate"]["per_seed"] for arm in ("sft", "cai"))
    curve = {point["step"]: point["attack_success_rate"] for point in results["curves"]["dpo"]}
    assert sft[1] != (sft[0] + sft[2]) / 2, "otherwise one set of seeds is as good as another"
    assert curve[0] == pytest.approx((sft[0] + sft[2]) / 2)
    assert curve[10] == curve[20] == pytest.approx((cai[0] + cai[2]) / 2)
    assert results["curves"]["sft"][-1]["attack_success_rate"] == pytest.approx(sum(sft) / 3)


@pytest.mark.parametrize(
    ("ci95", "said"),
    [
        ((-0.6, -0.2), "attack success fell from"),
        ((0.2, 0.6), "attack success rose from"),
        ((-0.2, 0.1), "not distinguishable from zero in this run"),
        ((-0.4, -0.4), "−40.0 to −40.0"),
    ],
)
def test_the_headline_claims_what_the_interval_allows(stored: StoredRun, ci95: tuple[float, float], said: str) -> None:
    results = _with(stored.results, ci95)
    assert said in headline(results)


def test_the_first_sentence_says_which_families_each_interval_is_over(stored: StoredRun) -> None:
    compared = stored.results.comparisons["cai - sft"]["attack_success_rate"]
    assert compared.ci95 is not None
    assert compared.over_families is not None
    ends = (
        " to ".join(number(RATE, end, signed=True) for end in ci95)
        for ci95 in (compared.ci95, compared.over_families.ci95)
    )
    first = headline(stored.results).partition("Over-refusal")[0]
    these, others = (f"{next(ends)} for the 6 families of attacks tested", f"{next(ends)} for other families")
    assert f"(95 % interval over seeds and prompts {these}; {others}, if these are typical; corrected p " in first


def test_families_that_the_method_did_not_see_have_a_difference_of_their_own(make_run: MakeRun) -> None:
    of_all, of_two = (load(make_run(seeds=2, unseen=count)).results for count in (0, 2))
    assert of_all.unseen is None
    assert of_two.unseen is not None
    assert len(of_two.unseen.families) == 2
    for arm, parts in of_two.unseen.arms.items():
        whole = of_two.arms[arm]["attack_success_rate"]
        assert [parts[part].total for part in ("unseen", "seen")] == [whole.total // 3, 2 * whole.total // 3]
        assert parts["unseen"].mean is not None
        assert parts["seen"].mean is not None
        assert (parts["unseen"].mean + 2 * parts["seen"].mean) / 3 == pytest.approx(whole.mean)
    (note,) = [one for one in notes(of_two) if one.startswith("Families held out of the method's prompts")]
    assert all(name in note for name in of_two.unseen.families)
    assert not [one for one in notes(of_all) if one.startswith("Families held out")]


@pytest.mark.parametrize("ci95", [None, (-0.2, 0.2)])
def test_the_headline_calls_equal_rates_unchanged(stored: StoredRun, ci95: tuple[float, float] | None) -> None:
    arms = stored.results.arms
    compared = stored.results.comparisons["cai - sft"]
    same = {
        name: difference.model_copy(update={"difference": 0.0, "ci95": ci95}) for name, difference in compared.items()
    }
    both_alike = {"arms": arms | {"cai": arms["sft"]}, "comparisons": {"cai - sft": same}}
    text = headline(stored.results.model_copy(update=both_alike))
    attack, over_refusal = (arms["sft"][name].mean or 0.0 for name in ("attack_success_rate", "over_refusal_rate"))
    within = " (95 % interval of the difference −20.0 to +20.0)" if ci95 else ""
    families = same["attack_success_rate"].over_families
    assert families is not None
    wide = " to ".join(number(RATE, end, signed=True) for end in families.ci95)
    of_families = (
        " (95 % interval of the difference −20.0 to +20.0 for the 6 families of attacks tested; "
        f"{wide} for other families, if these are typical)"
    )
    attack_within = of_families if ci95 else ""
    assert f"attack success is unchanged: {100 * attack:.1f} % for both SFT-only and Full CAI{attack_within}." in text
    assert f"Over-refusal is unchanged at {100 * over_refusal:.1f} %{within}." in text
    assert "went from" not in text


def test_the_table_says_what_its_rates_are_over(run: Path) -> None:
    text = " ".join(render(run).split())
    assert "Attack success rate: jailbreak prompts; lower is safer." in text
    assert "Refusal rate: jailbreak prompts." in text
    assert "Over-refusal rate: benign and benign-but-sensitive prompts; lower is better." in text


def test_the_table_by_round_says_which_chains_it_leaves_out(run: Path, stored: StoredRun) -> None:
    chains = stored.results.revision.prefilled.chains
    assert chains > 1
    assert f"This table leaves out {chains} chains whose original was prefilled" in " ".join(render(run).split())


@pytest.mark.parametrize(("next_value", "above"), [(0.1, True), (0.9, False)])
def test_the_name_of_a_line_that_ends_early_is_beside_the_line_that_goes_on(next_value: float, above: bool) -> None:
    with Sheet("sheet").panel("panel", "title") as axes:
        axes.plot([0.0, 60.0], [0.8, 0.5])
        axes.plot([60.0, 360.0], [0.5, next_value])
        rate_axis(axes)
        label_ends(axes, [(60.0, 0.5, "first", "#1f2328"), (360.0, next_value, "second", "#1f2328")])
    first = next(text for text in axes.texts if text.get_text() == "first")
    assert isinstance(first, Annotation)
    assert first.get_horizontalalignment() == "left"
    assert (first.xyann[1] > 0) == above


def test_every_rate_is_drawn_in_per_cent(stored: StoredRun) -> None:
    pictures = {picture.name: picture.svg.decode() for group in figures.draw(stored) for picture in group.pictures}
    rates = ("arms-attack-success-rate", "training-dpo-accuracy", "course-over-refusal-rate", "rounds-shares")
    for name in rates:
        ticks = re.findall(r"<text[^>]*>([^<]+)</text>", pictures[name])
        assert {"%", "25", "75", "100"} <= set(ticks), name
        assert not {"share", "0.25", "0.75"} & set(ticks), name


def test_training_curves_are_a_running_mean_over_a_constant_reach() -> None:
    noisy = [(float(step), float(step % 2)) for step in range(40)]
    smooth = figures.smoothed(noisy)
    assert [x for x, _ in smooth] == [x for x, _ in noisy[: -figures.REACH]]
    assert all(0.4 < y < 0.6 for _, y in smooth[figures.REACH :]), "its end too is a mean, not the last batch"
    straight = [(float(step), 2.0 * step) for step in range(40)]
    assert figures.smoothed(straight) == straight[: -figures.REACH], "a margin that begins at 0 is drawn from 0"
    assert figures.smoothed([(0.0, 3.0)]) == [(0.0, 3.0)]


def test_the_headline_says_when_there_was_nothing_to_lower(stored: StoredRun) -> None:
    arms = stored.results.arms
    attack = arms["sft"]["attack_success_rate"].model_copy(update={"mean": 0.0})
    changed = {"arms": arms | {"sft": arms["sft"] | {"attack_success_rate": attack}}}
    results = stored.results.model_copy(update=changed)
    assert "is 0.0 % after SFT alone, so it could not fall" in headline(results)


def test_the_headline_names_a_blanket_refuser(stored: StoredRun) -> None:
    assert (stored.results.arms["cai"]["over_refusal_rate"].mean or 0.0) > 0.5
    assert "a blanket refuser" in headline(stored.results)


def _with(results: Results, ci95: tuple[float, float]) -> Results:
    compared = results.comparisons["cai - sft"]
    changed = compared["attack_success_rate"].model_copy(update={"difference": sum(ci95) / 2, "ci95": ci95})
    return results.model_copy(update={"comparisons": {"cai - sft": compared | {"attack_success_rate": changed}}})


def test_chains_are_varied_and_include_the_worst(stored: StoredRun) -> None:
    shown = chosen.chains(stored)
    patterns = [candidate.pattern for candidate in shown]
    assert len(shown) == chosen.CHAINS
    assert "Harmful before and after" in patterns
    assert "A harmless prompt, revised into a refusal" in patterns
    assert any(pattern.startswith("Filtered") for pattern in patterns)
    assert len({candidate.kind for candidate in shown}) >= 5
    assert {candidate.seed for candidate in shown} == {0, 1}
    assert [c.first.id for c in shown] == [c.first.id for c in chosen.chains(stored)]


def test_answers_are_to_the_same_prompt_and_include_the_worst(stored: StoredRun) -> None:
    shown = chosen.answers(stored)
    assert chosen.arms_shown(stored) == ["sft", "cai"]
    assert len(shown) == chosen.ANSWERS
    assert all(len({answer.id for answer in candidate.items}) == 1 for candidate in shown)
    patterns = {candidate.pattern for candidate in shown}
    assert {"The attack succeeds on SFT-only and Full CAI", "A harmless prompt is refused"} <= patterns


def test_a_prompt_of_no_kind_is_never_called_harmless() -> None:
    verdict = Verdict(complied=True, refused=False, helpfulness=5.0, gibberish=False)
    chain = Chain(
        id="p",
        kind=None,
        family=None,
        prompt="How?",
        refusal_opener=None,
        original="So.",
        rounds=(Round(principle="care", critique="None.", revision="So."),),
        truncated=0,
        sampled_tokens=9,
        outcome="pair",
        verdicts=(verdict, verdict),
    )
    assert [pattern.matches(chain) for pattern in chosen.CHAIN_PATTERNS].index(True) == len(chosen.CHAIN_PATTERNS) - 1


@pytest.mark.parametrize(
    ("name", "value", "signed", "text"),
    [
        ("attack_success_rate", 0.8875, False, "88.8"),
        ("attack_success_rate", -0.4331, True, "−43.3"),
        ("over_refusal_rate", 0.125, True, "+12.5"),
        ("helpfulness", -0.001, True, "0.00"),
        ("response_tokens", 41.26, False, "41.3"),
    ],
)
def test_numbers(name: str, value: float, signed: bool, text: str) -> None:
    assert number(METRICS[name], value, signed) == text


def test_what_controls_a_terminal_is_shown_as_its_escape_on_one_line() -> None:
    assert one_line("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb c\\u202e"


def test_at_its_end_a_run_prints_the_answer_the_table_and_what_to_do_next(make_run: MakeRun) -> None:
    directory = make_run(seeds=2)
    text, whole = summary(directory), render(directory)
    assert len(text.splitlines()) < len(whole.splitlines()) - 15
    assert headline(load(directory).results).split(".")[0] in " ".join(text.split())
    assert re.search(r"^Attack success", text, re.M)
    assert f"cai-base report {directory} --open  # its page" in next_commands(directory)
    assert "Brackets: 95 % confidence intervals over seeds and prompts; for an arm that is one model" in text
    assert "Brackets: 95 % confidence intervals over prompts, of one seed." in summary(make_run(seeds=1))


def test_a_command_on_a_folder_can_be_pasted_into_a_shell() -> None:
    assert command_on("track", Path("my runs/a"), "--to", "wandb") == "cai-base track 'my runs/a' --to wandb"
    assert resume_command(Path("$(a)")) == "cai-base resume '$(a)'"


def test_the_headline_has_the_corrected_p_and_the_rounds_say_what_they_are_over(run: Path) -> None:
    stored = load(run)
    p = stored.results.comparisons["cai - sft"]["attack_success_rate"].p_primary
    assert p is not None
    assert f"; corrected p {p_value(p)})" in headline(stored.results).partition("Over-refusal")[0]
    text = render(run)
    for row in ("Harmful prompts: complied (%)", "Benign prompts: refused (%)", "Benign prompts: helpfulness"):
        assert f"\n{row}" in text
