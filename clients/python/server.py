"""The server that the suites talk to, and databases of it."""

import itertools
import os

_SERVER = os.environ.get("DORMOUSE_TEST_URL")
if not _SERVER:
    raise SystemExit("DORMOUSE_TEST_URL is not set: `cargo xtask test clients` runs this")

_COUNT = itertools.count(1)

# Text that breaks whoever quotes, counts or encodes wrongly.
ODD_TEXT = "Siebenschl\u00e4fer \U0001f42d \u4e2d\u6587 'single' \"double\" \\back $1 %s {a,b} \r\n\t end"


def new_database(scheme: str = "postgresql") -> str:
    """The address of a database that nobody has used before."""
    return f"{_SERVER}/p{os.getpid()}_{next(_COUNT)}".replace("postgres:", f"{scheme}:", 1)
