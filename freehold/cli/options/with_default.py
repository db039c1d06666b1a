"""A group of commands one of which need not be named."""

from typing import Any

from typer.core import TyperGroup


class WithDefault(TyperGroup):
    """`freehold GROUP WORDS` is `freehold GROUP default WORDS`, and so are no words at all,
    unless those ask for help."""

    default: str

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        if not is_named and (args or not self.no_args_is_help):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
