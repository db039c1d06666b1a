"""Migrations only add, so that what the version before asks of the database still holds."""

import ast
from importlib.resources import files

import pytest

_FIRST = "0003"  # what is older was never released
_STEPS = sorted(
    (
        path
        for path in (files("freehold.store") / "migrations" / "versions").iterdir()
        if path.name.endswith(".py") and path.name >= _FIRST
    ),
    key=lambda path: path.name,
)
_ADDS = {"create_table", "create_index", "add_column", "execute", "bulk_insert", "get_bind", "f"}


def _operations(source: str) -> list[ast.Call]:
    """What `upgrade` asks of Alembic."""
    (upgrade,) = [
        each for each in ast.parse(source).body
        if isinstance(each, ast.FunctionDef) and each.name == "upgrade"
    ]  # fmt: skip
    calls = [each for each in ast.walk(upgrade) if isinstance(each, ast.Call)]
    return [
        each
        for each in calls
        if isinstance(each.func, ast.Attribute)
        and isinstance(each.func.value, ast.Name)
        and each.func.value.id == "op"
    ]


def _wrong(source: str) -> list[str]:
    found = []
    for call in _operations(source):
        assert isinstance(call.func, ast.Attribute)
        name = call.func.attr
        if name not in _ADDS:
            found.append(name)
        if name == "add_column" and isinstance(call.args[1], ast.Call):
            given = {each.arg: each.value for each in call.args[1].keywords}
            may_be_empty = given.get("nullable")
            is_empty = isinstance(may_be_empty, ast.Constant) and may_be_empty.value is True
            if not is_empty and "server_default" not in given:
                found.append("add_column that must not be empty")
    return found


@pytest.mark.parametrize("step", _STEPS, ids=lambda path: path.name)
def test_an_upgrade_takes_nothing_away(step: object) -> None:
    assert _wrong(step.read_text()) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "line",
    [
        "op.drop_column('a', 'b')",
        "op.alter_column('a', 'b', new_column_name='c')",
        "op.drop_table('a')",
        "op.rename_table('a', 'b')",
        "op.add_column('a', sa.Column('b', sa.String(), nullable=False))",
    ],
)
def test_what_takes_something_away_would_be_found(line: str) -> None:
    assert _wrong(f"def upgrade() -> None:\n    {line}\n")
