"""What may be shown of a text that may hold a database's URL."""

import re


def without_password(text: str) -> str:
    """The same, user and password of any URL in it replaced by ***; a password may itself hold / and @."""
    text = re.sub(r"://\S*@", "://***@", text)
    return re.sub(r"([?&](?:ssl_)?(?:password|username)=)[^&\s'\"]*", r"\1***", text)
