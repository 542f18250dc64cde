"""Messages as nobody would send them, for Hypothesis: of any type, made from its descriptor.

    requests = Messages({"url": st.sampled_from([...])}).of(Deployment.DESCRIPTOR)

What a field holds is made by the strategy for its name, if there is one, or for its kind. Those with a strategy for
their name are nearly always there, and others seldom: a message with much that is odd is refused for the first of it.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

LEVELS = 5  # of messages in messages
DURATION_SECONDS = 315_576_000_000  # the most that is one
TIMESTAMP_SECONDS = (-62_135_596_800, 253_402_300_799)  # the years 1 and 9999

WELL_KNOWN = {  # seconds that make sense
    "google.protobuf.Timestamp": [0, 1_700_000_000, 2_000_000_000],
    "google.protobuf.Duration": [0, 60, 3600, 86_400],
}
_ABSENT: Any = object()

ODD_TEXTS = [
    "", " ", "\0", "\n", "\t", "a\0b", "-", "--help", ".", "..", "../../etc/passwd", "/", "//", "a/b/c/d", "'", '"',
    "\\", "%s%n", "{name}", "${HOME}", "`id`", "<a>", "nul", "\u202egnp.exe", "\ufeff", "\ufffd", "é", "e\u0301", "ß",
    "ﷺ", "😀", "\U0010ffff", "٣", "½", "x" * 51, "x" * 1_000, "é" * 20_000, "1", "-1", "1e999", "NaN", "null", "[]",
    "{}", "[" * 2_000, "0" * 5_000, "9" * 400, "true", "*", "a" * 64, "0x7f", "DROP TABLE deployments;--", "main",
    "HEAD", "@{-1}",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=30))


def numbers(low: int, high: int) -> Strategy:
    """Whole numbers, those at the ends more often than chance would have it."""
    edges = [0, 1, -1, 2, 50, 1_000, 2**31 - 1, 2**31, 2**53, 2**53 + 1, low, low + 1, high - 1, high]
    return st.one_of(st.sampled_from([each for each in edges if low <= each <= high]), st.integers(low, high))


FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-320, 0.001, 1.0, 1e308, float("inf"), float("nan"), -1.0]), st.floats()
)
KINDS: Mapping[int, Strategy] = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: numbers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: numbers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: numbers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: numbers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: FLOATS,
}


SELDOM = 6  # one in so many


def mostly(usual: Strategy, odd: Strategy, *, seldom: int = SELDOM) -> Strategy:
    """The usual, but for one in so many."""
    return st.sampled_from([usual] * (seldom - 1) + [odd]).flatmap(lambda chosen: chosen)


class Messages:
    """Strategies of messages; `by_name` has those of fields, by their names."""

    def __init__(self, by_name: Mapping[str, Strategy]) -> None:
        self._by_name = by_name
        self._made: dict[tuple[str, int], Strategy] = {}

    def of(self, descriptor: Descriptor, levels: int = LEVELS) -> Strategy:
        """Messages of a type."""
        key = descriptor.full_name, levels
        if key not in self._made:
            self._made[key] = st.deferred(lambda: self._new(descriptor, levels))
        return self._made[key]

    def _new(self, descriptor: Descriptor, levels: int) -> Strategy:
        kind = GetMessageClass(descriptor)
        if descriptor.full_name in WELL_KNOWN:
            usual = st.builds(kind, seconds=st.sampled_from(WELL_KNOWN[descriptor.full_name]))
            odd = st.builds(kind, seconds=_seconds(), nanos=numbers(-(2**31), 2**31 - 1) | st.just(0))
            return mostly(usual, odd)
        fields = [field for field in descriptor.fields if levels or field.message_type is None]
        absent = st.just(_ABSENT)
        return st.fixed_dictionaries(
            {
                field.name: mostly(self._field(field, levels), absent)
                if field.name in self._by_name or (field.message_type and levels == LEVELS)
                else mostly(absent, self._field(field, levels), seldom=2 * SELDOM)
                for field in fields
            }
        ).map(lambda values: kind(**{name: value for name, value in values.items() if value is not _ABSENT}))

    def _field(self, field: FieldDescriptor, levels: int) -> Strategy:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            keys, values = (self._one(each, levels) for each in field.message_type.fields)
            return st.dictionaries(keys, values, max_size=3)
        one = self._one(field, levels)
        return st.lists(one, max_size=3) if field.is_repeated else one

    def _one(self, field: FieldDescriptor, levels: int) -> Strategy:
        if field.message_type is not None:
            return self.of(field.message_type, levels - 1)
        if field.name in self._by_name:
            return self._by_name[field.name]
        if field.enum_type is not None:
            known = [value.number for value in field.enum_type.values]
            return mostly(st.sampled_from(known), st.sampled_from([-1, 99, 2**31 - 1, -(2**31)]))
        if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=100)
        return KINDS.get(field.cpp_type, TEXTS)


def _seconds() -> Strategy:
    edges = [0, 1, -1, 59, 60, 61, DURATION_SECONDS, DURATION_SECONDS + 1, *TIMESTAMP_SECONDS, TIMESTAMP_SECONDS[1] + 1]
    return st.one_of(st.sampled_from([*edges, 2**63 - 1, -(2**63)]), numbers(-(2**63), 2**63 - 1))
