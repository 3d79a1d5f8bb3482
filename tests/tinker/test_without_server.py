"""What goes wrong before any service is reached is said in one sentence."""

import sys
from pathlib import Path

import pytest

from cai_base.engines.tinker import service
from cai_base.errors import UserError
from cai_base.settings import command_line as flags


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinker", None)
    with pytest.raises(UserError, match=r"the Tinker SDK is not installed .*pip install 'cai-base\[tinker\]'"):
        service.sdk()


def test_the_key_is_read_from_the_environment_or_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINKER_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"there is no key; set TINKER_API_KEY, or write it to \.env"):
        service.api_key()
    Path(".env").write_text("TINKER_API_KEY=tml-in-a-file\n")
    assert service.api_key() == "tml-in-a-file"
    monkeypatch.setenv("TINKER_API_KEY", "tml-in-the-environment")
    assert service.api_key() == "tml-in-the-environment"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--engine tinker --model a/b --judge none --arms sft,instruct --instruct c/d --tinker-url http://x", None),
        (
            "--engine tinker --model organism --arms sft,instruct",
            "give --instruct: a model on the service",
        ),
        ("--instruct-tokenizer folder", "instruct-tokenizer: applies only to --engine tinker"),
        ("--model a/b --judge tinker:c/d --tinker-url http://x --price 1,1,1 --max-cost 1", None),
        ("--judge-tokenizer folder", "judge-tokenizer: applies only to a judge tinker:MODEL"),
        ("--judge tinker", "'tinker' is not a judge"),
    ],
)
def test_what_only_a_service_has_is_asked_for_where_there_is_one(given: str, said: str | None) -> None:
    if said is None:
        assert flags.load_settings(given.split())[0].tinker_url == "http://x"
        return
    with pytest.raises(UserError, match=said):
        flags.load_settings(given.split())
