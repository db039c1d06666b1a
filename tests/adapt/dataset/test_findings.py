"""Personal data and secrets are found by kind, and no report repeats one."""

import json

import pytest

from freehold.adapt.dataset.findings import scan
from tests.adapt import tickets
from tests.adapt.dataset.conftest import Make, chat

# Made up for this; those with a check digit have the right one.
_HELD = {
    "email": ["mira.jones+x@shop.example.com"],
    "phone": ["+49 30 1234567", "(212) 555-0142", "212-555-0142", "+44 (0)20 7946 0958",
              "030 1234567", "0171/1234567"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "340000000000009"],
    "ip address": ["192.0.2.17", "2001:db8:0:0:1:0:0:1", "2001:db8::7"],
    "national id": ["078-05-1120", "12345678Z", "X1234567L", "AB 12 34 56 C", "RSSMRA85T10A562S",
                    "86095742719", "44051401359", "255081416802538"],
    "api key": ["AKIAIOSFODNN7EXAMPLE", "sk-proj-" + "a1B2" * 8, "ghp_" + "a1B2" * 9,
                "xoxb-123456789012-abcdef", "hf_" + "aBcD" * 9, "sk_live_" + "4e" * 12,
                "fh_prod_01ARZ3NDEKTSV4RRFFQ69G5FAV_" + "x" * 43],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"],
    "private key": ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n"
                    "-----END OPENSSH PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nMIIEv"],
    "password": ["password: hunter2hunter2", "https://mira:s3cret@shop.example/"],
}  # fmt: skip
_CASES = [(kind, each) for kind, texts in _HELD.items() for each in texts]


@pytest.mark.parametrize(("kind", "text"), _CASES)
def test_each_is_found_and_its_place_taken(kind: str, text: str) -> None:
    found, left = scan(f"Please note {text} for later")
    assert [each.name for each in found] == [kind]
    assert text not in left
    assert f"[{kind.upper().replace(' ', '_')}]" in left
    assert scan(left) == ((), left)


@pytest.mark.parametrize("text", [
    "order 4111 1111 1111 1112", "version 1.2.3.4567", "DE89 3704 0044 0532 0130 01",
    "12345678A", "86095742710", "at 12:30:45 on 2026-01-31", "from 2019 to 2024",
    "999.999.999.999", "the password is asked for", "a token: see below", "127.0.0.1",
    "ISBN 978-3-16-148410-0", "E104 and 0x80", "reply within 10-14 days", "eyJhbGciOi",
    "1,234,567.89", "call 112", "room 0301 2345",
])  # fmt: skip
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert scan(text) == ((), text)


def test_findings_are_counted_by_kind_with_the_examples_lines(make: Make) -> None:
    secret = "ghp_" + "q7R8" * 9
    examples = list(tickets.examples(60))
    examples[9] = chat(f"Mail a@b.example or c@d.example, key {secret}", "account")
    examples[20] = chat("Mail e@f.example", "account")
    made = make(examples)
    assert made.report["findings"] == [
        {"type": "api key", "severity": "secret", "count": 1, "examples": [10]},
        {"type": "email", "severity": "personal", "count": 3, "examples": [10, 21]},
    ]
    assert made.report["needs_acceptance"] == ["api key × 1 (example 10)"]
    assert secret not in json.dumps(made.report)
    assert "b.example" not in json.dumps(made.report)


def test_redacted_sets_hold_placeholders_and_need_no_acceptance(make: Make) -> None:
    call = {"function": {"name": "mail", "arguments": '{"to": "a@b.example"}'}}
    messages = chat("My key is " + "ghp_" + "q7R8" * 9, "x")["messages"]
    messages[1] = {"role": "assistant", "tool_calls": [call]}
    made = make([{"messages": messages}, *tickets.examples(20)], redact=True, held_out=0)
    assert made.report["needs_acceptance"] == []
    assert [each["count"] for each in made.report["findings"]] == [1, 1]
    first = made.train[0]["messages"]
    assert first[0]["content"] == "My key is [API_KEY]"
    assert first[1]["tool_calls"][0]["function"]["arguments"] == '{"to": "[EMAIL]"}'


def test_honest_tickets_hold_none(make: Make) -> None:
    assert make(tickets.examples(300, languages=True)).report["findings"] == []
