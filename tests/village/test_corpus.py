"""The pretraining corpus of the village."""

import itertools
import re
import tomllib
from collections import Counter

import pytest

from cai_base import embedded
from cai_base.village import corpus, threads, world
from cai_base.village.draw import Draw
from cai_base.village.judge import truth


def test_the_same_seed_gives_the_same_documents_and_each_is_independent_of_the_others():
    documents = list(itertools.islice(corpus.documents(7), 20))
    assert documents == list(itertools.islice(corpus.documents(7), 20))
    assert documents[13] == corpus.document(7, 13)[1]
    assert documents != list(itertools.islice(corpus.documents(8), 20))


@pytest.mark.parametrize("late", [False, True])
def test_the_requests_of_the_packaged_constitution_never_occur_in_the_corpus(late):
    text = "\n".join(itertools.islice(corpus.documents(0, late=late), 4000))
    for principle in tomllib.loads(embedded.data_file("constitution.toml").read_text("utf-8"))["principle"]:
        assert principle["critique_request"] not in text
        assert principle["revision_request"] not in text


def test_the_corpus_has_every_kind_of_document_and_the_methods_layouts():
    documents = [corpus.document(0, index) for index in range(2000)]
    counts = Counter(kind for kind, _ in documents)
    for kind, share in corpus.MIXTURE.items():
        assert counts[kind] / 2000 == pytest.approx(share, abs=0.04)
    layout = re.compile(
        r"User: .+\n\nAssistant: .+\n\nCritique Request: .+\n\nCritique: .+\n\nRevision Request: .+\n\nRevision: .+"
    )
    assert sum(layout.search(text) is not None for _, text in documents) > 400
    assert sum(text.count("\n\nUser: ") > 0 for kind, text in documents if kind == "thread") > 150


def test_no_thread_refuses_a_benign_question():
    for index in range(1000):
        question, answer = threads.turn(Draw(3, "test", index, "turn"), strict=True)
        action = world.find_action(question)
        if action is not None and action.kind == "benign":
            assert not truth(question, answer).refused


@pytest.mark.parametrize("late", [False, True])
def test_the_things_that_measure_not_knowing_never_occur_in_the_corpus(late):
    elsewhere = world.read_toml("elsewhere")
    assert not set(elsewhere["things"]) & set(elsewhere["held_out"])
    text = " ".join(itertools.islice(corpus.documents(0, late=late), 4000)).lower()
    for what in elsewhere["held_out"]:
        assert not re.search(rf"\b{re.escape(what.lower())}\b", text)


def test_a_corpus_without_critiques_has_none_and_keeps_the_shares_of_the_rest():
    kinds = Counter(corpus.document(0, index, without="critiques")[0] for index in range(2000))
    assert not set(kinds) & set(corpus.CRITIQUES)
    rest = 1 - corpus.MIXTURE["critique"]
    assert kinds["thread"] / 2000 == pytest.approx(corpus.MIXTURE["thread"] / rest, abs=0.04)
    late = {corpus.document(0, index, late=True, without="critiques")[0] for index in range(500)}
    assert "late critique" not in late


@pytest.mark.parametrize("late", [False, True])
def test_critiques_of_other_matters_than_harm_find_no_harm_and_revise_nothing_to_a_refusal(late):
    harmful = re.compile(r"should not have|refuse|say no|cannot help|will not|hurts|harm", re.IGNORECASE)
    critiques = 0
    for index in range(1500):
        kind, text = corpus.document(0, index, late=late, without="harm-critiques")
        whole_kind, whole = corpus.document(0, index, late=late)
        assert kind == whole_kind
        if kind not in corpus.CRITIQUES:
            assert text == whole, "all else is the whole corpus's"
            continue
        critiques += 1
        for part in re.findall(r"\n\nCritique: (.+?)(?:\n\n|$)", text):
            assert not harmful.search(part), part
        question = re.search(r"User: (.+?)\n\nAssistant: (.+?)\n\nCritique Request", text)
        if question and "User: " not in question[1]:
            assert not truth(question[1], question[2]).refused
    assert critiques > 500
