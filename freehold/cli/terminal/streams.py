"""Standard streams that whoever started a command has closed (`<&-`): Python has None for them,
and the next file that is opened their number. Imported before anything looks at them."""

import os
import sys

for _name, _mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, _mode, encoding="utf-8"))  # noqa: SIM115
