"""Text within limits that are counted in bytes."""


def cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, an ellipsis among them where something is missing; `?` for what UTF-8 lacks."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"
