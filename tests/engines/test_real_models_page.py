"""docs/real-models.md: its tables are those of the tests, and every test that it names exists with that row."""

import re
from pathlib import Path

import pytest
import test_architectures
import test_checkpoint_forms
from shapes import EAGER, PADDED, TOKENIZERS
from small_tokenizers import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "real-models.md").read_text(encoding="utf-8")
COLUMNS = {
    "loads": "test_a_model_is_loaded_with_eager_attention_only_where_it_needs_it",
    "packed = padded": "test_packed_equals_padded_or_the_note_says_why_it_is_not_packed",
    "prefix kept once an adapter": "test_a_prefix_kept_once_an_adapter_changes_no_token_or_is_not_kept",
    "greedy = `generate`": "test_at_temperature_0_the_response_is_that_of_generate",
    "adapter = PEFT": "test_an_exported_adapter_has_the_log_probabilities_of_peft",
}
"""The columns of the matrix of shapes, and the test of `test_architectures` that fills each."""
TOKENS = (
    "tests/test_dialogue.py::test_a_model_that_writes_the_tokens_trained_on_is_stopped_at_the_last_and_has_written_"
    "the_response"
)


def cells(kind: str) -> list[str]:
    """What is true of a shape, in the order of the columns."""
    attention = f"eager, for its {EAGER[kind]}" if kind in EAGER else "yes"
    packed = f"padded: {PADDED[kind]}" if kind in PADDED else "yes"
    kept = "no" if kind in PADDED else "yes"
    return [attention, packed, kept, "yes", "yes", ", ".join(TOKENIZERS.get(kind, ())) or "-"]


def parameters(test: object) -> dict[str, list[str]]:
    """The values that a test is run with, by argument."""
    marks = getattr(test, "pytestmark", [])
    return {mark.args[0]: list(mark.args[1]) for mark in marks if mark.name == "parametrize"}


def table() -> str:
    """The matrix of shapes as the page has it."""
    header = ["shape", *COLUMNS, "tokens trained = sampled"]
    rows = [[kind, *cells(kind)] for kind in test_architectures.KINDS]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def forms() -> str:
    """The table of stored forms as the page has it."""
    header = ["stored", *test_checkpoint_forms.SHAPES]
    rows = [[form, *["yes"] * len(test_checkpoint_forms.SHAPES)] for form in test_checkpoint_forms.FORMS]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@pytest.mark.parametrize("made", [table, forms])
def test_a_table_of_the_page_is_what_is_tested(made: object) -> None:
    wanted = made()  # type: ignore[operator]
    assert wanted in PAGE, f"docs/real-models.md must have this table:\n{wanted}"


def test_every_shape_is_a_row_of_every_test_that_the_page_names() -> None:
    for name in COLUMNS.values():
        assert f"`{name}`" in PAGE
        assert parameters(getattr(test_architectures, name)) == {"kind": test_architectures.KINDS}
    for name, test in vars(test_checkpoint_forms).items():
        if name.startswith("test_") and parameters(test):
            assert f"`{name}`" in PAGE
            wanted = {"form": list(test_checkpoint_forms.FORMS), "kind": list(test_checkpoint_forms.SHAPES)}
            assert parameters(test) == wanted
    assert {kind for kinds in TOKENIZERS.values() for kind in kinds} <= set(KINDS)
    assert TOKENS in PAGE


def test_every_test_of_the_table_of_faults_is_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "::test_" in line]
    assert len(rows) >= 25
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE):
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), name
