"""A file becomes a dataset in one form, or one sentence says why not."""

import csv
import io
import json
import re
import resource
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freehold.adapt.dataset.columns import Columns
from freehold.adapt.dataset.lengths import Ruler
from freehold.adapt.dataset.source import Format
from freehold.core.errors import Code, UserError
from tests.adapt import tickets
from tests.adapt.dataset.conftest import Make, chat

_PAIR = {
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "preferred_output": [{"role": "assistant", "content": "Hello!"}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}
_CANONICAL = {
    "prompt": [{"role": "user", "content": "Hi"}],
    "chosen": [{"role": "assistant", "content": "Hello!"}],
    "rejected": [{"role": "assistant", "content": "What?"}],
}
_CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"id": 7}}, "id": "c1"}


def _all(make: Make, examples: list[Any], **wanted: Any) -> list[dict[str, Any]]:
    return make(examples, held_out=0, **wanted).train


def test_chat_examples_keep_what_training_reads_and_nothing_else(make: Make) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be "},
                                          {"type": "text", "text": "brief."}]},
        {"role": "user", "content": "Where is parcel 7?", "id": "m1", "refusal": None},
        {"role": "assistant", "content": None, "tool_calls": [_CALL], "weight": 0},
        {"role": "tool", "content": "on its way", "tool_call_id": "c1"},
        {"role": "assistant", "content": "On its way."},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    made = make([{"messages": messages, "tools": tools, "source": "x"}, chat("a", "b")], held_out=0)
    assert made.train[0] == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is parcel 7?"},
            {"role": "assistant", "content": None, "weight": 0, "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "look_up", "arguments": '{"id": 7}'}}]},
            {"role": "tool", "content": "on its way", "tool_call_id": "c1"},
            {"role": "assistant", "content": "On its way."},
        ],
        "tools": tools,
    }  # fmt: skip
    assert made.report["fields_left_out"] == {"id": 1}


def test_preference_pairs_of_each_form_become_the_same(make: Make) -> None:
    other = {"prompt": "Bye", "chosen": "So long.", "rejected": "Go."}
    whole = {
        "chosen": _CANONICAL["prompt"] + _CANONICAL["chosen"],
        "rejected": _CANONICAL["prompt"] + _CANONICAL["rejected"],
    }
    plain = {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}
    for form in (_PAIR, whole, plain, {**whole, "prompt": _CANONICAL["prompt"]}, _CANONICAL):
        assert _all(make, [form, other])[0] == _CANONICAL


def test_a_table_becomes_chat_examples(make: Make) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";")
    writer.writerows([["Ticket", "team"], ['Where is my "box"?\nIt is late', "shipping"],
                      ["Charged twice", " billing "]])  # fmt: skip
    content = b"\xef\xbb\xbf" + text.getvalue().encode()
    columns = Columns(answer="team", system="Say the team.")
    made = make(content, "tickets.csv", held_out=0, columns=columns)
    first, second = ([m["content"] for m in each["messages"]] for each in made.train)
    assert first == ["Say the team.", 'Where is my "box"?\nIt is late', "shipping"]
    assert second == ["Say the team.", "Charged twice", "billing"]


def test_parquet_files_hold_columns_or_whole_conversations(make: Make, tmp_path: Path) -> None:
    conversations = [chat("How?", "So."), chat("Why?", "Because.")]
    tables = (
        pa.Table.from_pylist(conversations),
        pa.table({"question": ["How?", "Why?"], "answer": ["So.", "Because."]}),
    )
    for table in tables:
        pq.write_table(table, tmp_path / "x.parquet")
        made = make((tmp_path / "x.parquet").read_bytes(), "x.parquet", held_out=0)
        assert made.train == conversations


_LONG = b'{"prompt":"' + b"x" * (4 * 1024 * 1024) + b'","completion":"y"}'
_GOOD = json.dumps(chat("How?", "So.")).encode() + b"\n"
_BAD: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "x.jsonl", "x.jsonl is empty: write one example a line."),
    "blank": (b"\n \n", "x.jsonl", "x.jsonl begins with blank lines alone: write one example"),
    "cut off": (b"{", "x.jsonl", "Line 1 is not valid JSON"),
    "one line": (_GOOD, "x.jsonl", "holds 1 example: at least two different ones are needed"),
    "one line twice": (_GOOD * 2, "x.jsonl", "holds 1 example but for copies of it"),
    "two kinds": (_GOOD + json.dumps(_PAIR).encode(), "x.jsonl",
                  "Line 2 is a preference example among chat ones"),
    "latin-1": (_GOOD + b'{"prompt":"\xe9"}', "x.jsonl", "Line 2 is not UTF-8 from byte 12 on"),
    "half a character": (
        _GOOD + b'{"prompt": "\\ud83d", "completion": "x"}\n', "x.jsonl",
        "holds half of a character",
    ),
    "utf-16": ("{}".encode("utf-16"), "x.jsonl", "is written in UTF-16: save it as UTF-8"),
    "zero bytes": (_GOOD + b"\0\0", "x.jsonl", "Line 2 holds zero bytes"),
    "a list": (b"[" + _GOOD + b"]", "x.jsonl", "is one JSON list: write one example a line"),
    "no object": (_GOOD + b"7", "x.jsonl", "Line 2 holds no JSON object"),
    "nan": (_GOOD + b'{"prompt":NaN}', "x.jsonl", "Line 2 is not valid JSON"),
    "deep": (_GOOD + b"[" * 100_000, "x.jsonl", "Line 2 is not valid JSON"),
    "a long line": (_GOOD + _LONG, "x.jsonl", "Line 2 is longer than 4 MiB"),
    "zipped": (b"PK\x03\x04xx", "x.jsonl", "is a ZIP or Excel file"),
    "text": (b"hello\n", "x.txt", "is neither JSON lines nor Parquet"),
    "not csv": (_GOOD, "x.csv", "holds JSON lines, not CSV"),
    "not parquet": (_GOOD, "x.parquet", "is no Parquet file"),
    "broken parquet": (b"PAR1 and no more", "x.parquet", "is a broken Parquet file"),
    "ragged": (b"prompt,answer\na,b\nc\n", "x.csv", "Line 3 has 1 columns where the first line"),
    "open quotes": (b'prompt,answer\n"a,b\n', "x.csv", "is not valid CSV"),
    "no column": (b"alpha,beta\na,b\n", "x.csv", "Say with `--prompt-column` which of these"),
    "no fields": (_GOOD + b'{"tekst":"a"}', "x.jsonl", "Line 2 has tekst: a chat example has"),
    "asks last": (json.dumps({"messages": [{"role": "user", "content": "a"}]}).encode(),
                  "x.jsonl", "Line 1 ends with a message of the user"),
    "no answer": (json.dumps(chat("a", "  ")).encode(), "x.jsonl", "has nothing in the answer"),
    "a role": (b'{"messages":[{"role":"robot","content":"a"}]}', "x.jsonl",
               "Line 1 has a `messages[0].role` that is none of"),
    "an image": (json.dumps(chat([{"type": "image_url"}], "b")).encode(),  # type: ignore[arg-type]
                 "x.jsonl", "`messages[0].content` with parts that are no text"),
    "one for itself": (b'{"prompt":"a","chosen":"b","rejected":"b"}', "x.jsonl",
                       "Line 1 prefers an answer to the same answer"),
}  # fmt: skip


@pytest.mark.parametrize("case", _BAD)
def test_what_is_no_dataset_ends_in_one_sentence(make: Make, case: str) -> None:
    content, name, said = _BAD[case]
    with pytest.raises(UserError) as refused:
        make(content, name)
    assert said in refused.value.message
    assert refused.value.message.endswith(".")
    assert "\n" not in refused.value.message


def test_what_is_too_large_is_refused_with_its_size_and_the_setting(make: Make) -> None:
    with pytest.raises(UserError, match=r"x has 0\.0 GB and `data\.max_gb` allows 1e-06"):
        make(_GOOD * 100, "x", max_gb=1e-6)
    with pytest.raises(UserError, match=r"Line 3 is beyond what `data\.max_examples` \(2\)"):
        make([chat(str(number), "a") for number in range(9)], max_examples=2)


def test_a_small_parquet_file_of_rows_without_end_is_refused_unread(
    make: Make, tmp_path: Path
) -> None:
    count = 20_000
    table = pa.table({"question": ["How?"] * count, "answer": ["So."] * count})
    pq.write_table(table, tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes()
    assert len(content) < 10_000
    with pytest.raises(UserError, match=r"unpacks to 20,000 rows of .* allows 1e-05"):
        make(content, "x.parquet", max_gb=1e-5)


def _with_sizes_made_small(content: bytes) -> bytes:
    """In what the file says of itself, sizes above 8 MB become 1 byte, in as many bytes."""
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8]
    lying = re.sub(rb"[\x80-\xff]{3}[\x08-\x7f]", b"\x82\x80\x80\x00", footer)
    assert lying != footer
    return content[: -8 - length] + lying + content[-8:]


def test_a_parquet_file_that_lies_about_its_size_is_refused_when_it_has_unpacked_that_much(
    make: Make, tmp_path: Path
) -> None:
    table = pa.table(
        {"question": [f"{number} " + "a" * 1_000_000 for number in range(30)], "answer": ["b"] * 30}
    )
    pq.write_table(
        table, tmp_path / "x.parquet", compression="zstd", use_dictionary=False,
        write_statistics=False, store_schema=False,
    )  # fmt: skip
    content = (tmp_path / "x.parquet").read_bytes()
    assert len(content) < 20_000
    with pytest.raises(UserError, match="unpacks to 30 rows of"):
        make(content, "x.parquet", max_gb=0.01)
    with pytest.raises(UserError, match=r"unpacks to more than the 0\.01 GB that `data\.max_gb`"):
        make(_with_sizes_made_small(content), "x.parquet", max_gb=0.01)


@pytest.mark.parametrize(
    ("size", "said"),
    [(5_000_000, "Row 1 is longer than 4 MiB"), (80_000_000, "unpacks to more than 2 GiB at once")],
)
def test_a_value_of_any_size_that_a_parquet_file_repeats_is_bounded(
    make: Make, tmp_path: Path, size: int, said: str
) -> None:
    value = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array(["a" * size]))
    table = pa.table({"question": value, "answer": ["b"] * 64})
    pq.write_table(
        table, tmp_path / "x.parquet", compression="zstd", dictionary_pagesize_limit=10**9
    )
    content = (tmp_path / "x.parquet").read_bytes()
    assert len(content) < 100_000
    with pytest.raises(UserError, match=said):
        make(content, "x.parquet")


def test_a_full_disk_ends_it_in_one_sentence(make: Make) -> None:
    """A limit for files is told by the system as a full disk is."""
    examples = [chat(f"Question {number}", f"Answer {number}") for number in range(200)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = "".join(f"{json.dumps(each)}\n" for each in examples).encode()
    try:
        with pytest.raises(UserError) as refused:
            make(content, after=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.code is Code.DISK_FULL
    assert "is full: free some space and try again." in refused.value.message


def test_a_file_that_is_called_what_it_is_not_is_told_by_the_option(make: Make) -> None:
    with pytest.raises(UserError, match="Line 1 is a chat example among preference ones"):
        make([chat("a", "b")], format=Format.PREFERENCE)


@pytest.mark.slow
def test_a_file_is_never_held_in_memory(make: Make) -> None:
    def peak(count: int) -> int:
        examples = [chat(f"{number} " + "long " * 12_000, "a") for number in range(count)]
        content = "".join(f"{json.dumps(each)}\n" for each in examples).encode()
        tracemalloc.start()
        make(content)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(30) < peak(10) + 20 * 20_000, "of 60,000 that each of them has"


def test_the_same_file_makes_the_same_files_and_another_seed_holds_out_others(make: Make) -> None:
    examples = list(tickets.examples(80))
    first, again, other = make(examples), make(examples), make(examples, seed=1)
    assert (first.train, first.held_out) == (again.train, again.held_out)
    assert first.held_out != other.held_out
    assert sorted(map(str, first.train + first.held_out)) == sorted(
        map(str, other.train + other.held_out)
    )


def test_of_each_class_its_share_is_held_out(make: Make) -> None:
    made = make(tickets.examples(240), held_out=0.1)
    held = [each["messages"][-1]["content"] for each in made.held_out]
    assert {held.count(label) for label in tickets.CLASSES} == {3}


def test_nothing_that_is_held_out_is_trained_on_in_part(make: Make) -> None:
    """The same question, a longer part of the same conversation, and nearly the same words
    are on one side."""
    examples = []
    for number in range(40):
        first = [
            {
                "role": "user",
                "content": f"My order {number} of {number * 7} boxes has not come yet",
            },
            {"role": "assistant", "content": f"Order {number} is on its way to you since Monday"},
        ]
        more = [{"role": "user", "content": "Thanks"}, {"role": "assistant", "content": "Bye."}]
        words = " ".join(f"word{number}x{each}" for each in range(40))
        examples += [{"messages": first}, {"messages": first + more}]
        examples += [chat(f"{words} now", "a thing that is said"), chat(f"{words} then", "another")]
        examples += [chat(f"Is {number} odd", f"{answer} {number}") for answer in ("yes", "no")]
    made = make(examples, held_out=0.25)
    assert len(made.held_out) >= 40

    def whose(sides: list[dict[str, Any]]) -> set[str]:
        return {" ".join(each["messages"][0]["content"].split()[:3]) for each in sides}

    assert not whose(made.train) & whose(made.held_out)
    assert made.report["nearly_the_same"] == 80


def test_copies_are_left_out_and_counted(make: Make) -> None:
    made = make([chat(str(number % 30), "a") for number in range(90)])
    assert (made.report["read"], made.report["repeated"]) == (90, 60)
    assert made.report["train"] + made.report["held_out"] == 30


def test_a_class_with_one_example_is_told_and_stays_with_what_is_trained_on(make: Make) -> None:
    made = make([*tickets.examples(80), chat("Do you hire?", "jobs")])
    assert made.report["labels"]["with_one_example"] == ["jobs"]
    assert made.train.count(chat("Do you hire?", "jobs")) == 1
    assert not any("weight 0" in note for note in made.report["notes"])
    assert any("one example only" in note and "jobs" in note for note in made.report["notes"])


def test_questions_under_several_labels_are_told_by_their_lines(make: Make) -> None:
    question = "The parcel that I ordered a week ago has still not come to my door in Leeds today"
    examples = [*tickets.examples(80), chat(question, "shipping"), chat(question, "billing")]
    examples += [chat(f"{question}!!", "shipping")]
    made = make(examples)
    assert made.report["labels"]["contradictions"] == 1
    assert made.report["labels"]["contradicting_examples"] == [[81, 82, 83]]
    assert any("1 question with several labels" in note for note in made.report["notes"])
    assert any("(examples 81, 82, 83)" in note for note in made.report["notes"])


def test_examples_of_which_nothing_is_learned_are_told(make: Make) -> None:
    made = make([chat("How?", "So.", weight=0), chat("Why?", "Because.")])
    told = "Without an answer to be learned (all have weight 0): 1 of 2."
    assert told in made.report["notes"]


def test_free_answers_are_no_labels(make: Make) -> None:
    made = make([chat(f"What is {number}?", f"It is {number} apples") for number in range(60)])
    assert made.report["labels"] is None


def test_lengths_are_counted_by_the_base_and_what_its_context_cannot_hold_is_told(
    make: Make,
) -> None:
    ruler = Ruler("tokens", len, 100)
    made = make([chat("x" * number, "y") for number in range(60, 120)], ruler=ruler)
    assert made.report["lengths"] | {"total": 0, "p5": 0, "p95": 0} == {
        "unit": "tokens", "total": 0, "shortest": 62, "p5": 0, "median": 91, "p95": 0,
        "longest": 121, "context": 100, "longer_than_context": 21,
    }  # fmt: skip
    assert any(
        "Longer than the 100 tokens" in n and "21 examples" in n for n in made.report["notes"]
    )


def test_languages_are_told(make: Make) -> None:
    texts = [
        "Wo ist das Paket und wie lange dauert es noch",
        "Je ne peux pas ouvrir la page de mon compte",
        "The parcel is not at the door and I was at home",
        "No puedo entrar en la cuenta porque está bloqueada",
        "Где моя посылка", "荷物はどこですか", "我的包裹在哪里", "λείπει το δέμα",
    ]  # fmt: skip
    made = make([chat(text, "") if False else chat(text, "ok") for text in texts])
    expected = ("de", "fr", "en", "es", "ru", "ja", "zh", "el")
    assert made.report["languages"] == dict.fromkeys(expected, 1)


def test_the_files_are_their_owners_alone(make: Make) -> None:
    made = make(tickets.examples(20))
    for name in ("train.jsonl", "held_out.jsonl", "report.json"):
        assert (made.folder / name).stat().st_mode & 0o777 == 0o600
    assert len(list(made.folder.iterdir())) == 3
