"""Texts without the secrets that a URI may hold."""

import re

MASK = "***"
"""What stands in place of a secret."""


def masked(text: str) -> str:
    """Return a URI, or a text with URIs, without its user names, passwords and query values: fit to be shown.

    A password may hold ``/``, ``?`` and ``#``, as SQLAlchemy takes them: all up to the last ``@`` of a word is masked.
    """
    without_user = re.sub(r"(://)(?!/)\S*@", rf"\1{MASK}@", text)
    without_user = re.sub(r"^[^:/\s]+:(?!//)\S*@", f"{MASK}@", without_user)  # a URI whose scheme was forgotten
    return re.sub(r"([?&][^=&\s]+=)[^&\s]+", rf"\1{MASK}", without_user)
