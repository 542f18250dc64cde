"""Values between JSON and R, for the R worker; through R's C interface, in bulk.

in    object → named list; {} too                     array of objects → data frame: columns by first appearance,
      array of numbers → integer; double where one      those of mixed or nested values list columns
      has a point or leaves 32 bits                   arrays of equal length, nested → matrix, array
      array of strings → character, of booleans →     any other array → list; [] too
      logical; null among them → NA                   scalar → vector of length one; null → NULL

out   vector → array, of length one too; no names     data frame → array of objects; no row names
      NA, NaN, NULL → null; ±Inf refused              matrix, array → array of rows, and so on inwards
      list → array; named → object, names unique      factor → labels; dates, times → ISO 8601
      what jsonlite::unbox marked → scalar            integer64 → integer; class json → what it says

Every function that makes an R object returns it unprotected: R may collect it at the next allocation, so it is stored
or protected at once. What R raises as an error outside of R code, as its accessors do on objects of the wrong type,
jumps over Python's frames and crashes: types are looked at before.
"""

import json
import math
from array import array
from collections.abc import Callable
from itertools import chain
from types import NoneType
from typing import Any

from rpy2.rinterface_lib.openrlib import ffi, rlib

SEXP = Any  # a cffi pointer to an R object

_NA_INTEGER = -(2**31)
_NA_INTEGER64 = -(2**63)
_S4_BIT = 1 << 4  # of sxpinfo.gp: set on S4 objects of any type

NAMES, DIM, _CLASS, _LEVELS, _ROW_NAMES = (
    rlib.Rf_install(name) for name in (b"names", b"dim", b"class", b"levels", b"row.names")
)


# ---- in


def from_json(body: bytes) -> Any:
    """Parses JSON as its RFC has it: NaN and Infinity are errors. Raises ValueError, RecursionError."""
    return _decode(body.decode())


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode


def to_r(value: Any) -> SEXP:
    """The R object for parsed JSON. Raises ValueError, OverflowError for what R cannot hold."""
    kind = type(value)
    if kind is dict:
        return to_list(value.values(), value)
    if kind is not list:
        return rlib.R_NilValue if value is None else _vector([value], {kind})
    kinds = set(map(type, value))
    made = None
    if kinds == {dict}:
        made = _data_frame(value)
    elif kinds == {list}:
        made = _array(value)
    elif kinds:
        made = _vector(value, kinds)
    return to_list(value) if made is None else made


def to_list(items: Any, names: Any = None) -> SEXP:
    """The R list of these, each made by `to_r`."""
    made = rlib.Rf_protect(rlib.Rf_allocVector(rlib.VECSXP, len(items)))
    try:
        for i, item in enumerate(items):
            rlib.SET_VECTOR_ELT(made, i, to_r(item))
        if names is not None:
            set_attribute(made, NAMES, characters(names))
    finally:
        rlib.Rf_unprotect(1)
    return made


def _vector(values: list[Any], kinds: set[type]) -> SEXP | None:
    """The vector of scalars of one kind; None if they are of several. Nulls alone are logical, as NA is."""
    kinds, gaps = kinds - {NoneType}, NoneType in kinds
    if kinds == {str}:
        return characters(values)
    if kinds <= {bool}:
        return _filled(rlib.LGLSXP, "i", values, gaps, _NA_INTEGER)
    if kinds == {int}:
        present = [v for v in values if v is not None] if gaps else values
        if min(present) > _NA_INTEGER and max(present) < 2**31:
            return _filled(rlib.INTSXP, "i", values, gaps, _NA_INTEGER)
    return _filled(rlib.REALSXP, "d", values, gaps, rlib.R_NaReal) if kinds <= {int, float} else None


def _filled(kind: int, code: str, values: list[Any], gaps: bool, na: float) -> SEXP:
    data = array(code, [na if v is None else v for v in values] if gaps else values)
    made = rlib.Rf_allocVector(kind, len(data))
    ffi.memmove(rlib.DATAPTR(made), data, len(data) * data.itemsize)
    return made


def characters(texts: Any) -> SEXP:
    """The character vector of these, None being NA. Raises ValueError."""
    made = rlib.Rf_protect(rlib.Rf_allocVector(rlib.STRSXP, len(texts)))
    try:
        for i, text in enumerate(texts):
            rlib.SET_STRING_ELT(made, i, rlib.R_NaString if text is None else _char(text))
    finally:
        rlib.Rf_unprotect(1)
    return made


def _char(text: str) -> SEXP:
    encoded = text.encode()  # half a surrogate pair is a ValueError here
    if 0 in encoded:
        raise ValueError("text in R cannot hold the character U+0000")  # R would jump out of this process's stack
    return rlib.Rf_mkCharLenCE(encoded, len(encoded), rlib.CE_UTF8)


def _array(rows: list[Any]) -> SEXP | None:
    """The matrix or array of nested arrays; None unless they are of equal lengths and hold scalars of one kind."""
    dims, flat = [len(rows)], rows
    while flat and (kinds := set(map(type, flat))) == {list}:
        if len(set(map(len, flat))) > 1:
            return None
        dims.append(len(flat[0]))
        flat = list(chain.from_iterable(flat))
    made = _vector(_by_column(flat, dims), kinds) if flat else None
    if made is None:
        return None
    rlib.Rf_protect(made)
    set_attribute(made, DIM, _vector(dims, {int}))
    rlib.Rf_unprotect(1)
    return made


def _by_column(flat: list[Any], dims: list[int]) -> list[Any]:
    """R's order of what comes row by row: the first index runs fastest."""
    if len(dims) == 1:
        return flat
    last = dims[-1]
    return list(chain.from_iterable(_by_column(flat[i::last], dims[:-1]) for i in range(last)))


def _data_frame(records: list[dict[str, Any]]) -> SEXP:
    """Columns of scalars of one kind are vectors, all others list columns."""
    names = list(dict.fromkeys(chain.from_iterable(records)))
    made = rlib.Rf_protect(rlib.Rf_allocVector(rlib.VECSXP, len(names)))
    try:
        for i, name in enumerate(names):
            cells = [record.get(name) for record in records]
            column = _vector(cells, set(map(type, cells)))
            rlib.SET_VECTOR_ELT(made, i, to_list(cells) if column is None else column)
        set_attribute(made, NAMES, characters(names))
        set_attribute(made, _ROW_NAMES, _vector([None, -len(records)], {int, NoneType}))
        set_attribute(made, _CLASS, characters(["data.frame"]))
    finally:
        rlib.Rf_unprotect(1)
    return made


def set_attribute(made: SEXP, attribute: SEXP, value: SEXP) -> None:
    """Sets an attribute of an object that the caller has protected."""
    rlib.Rf_protect(value)
    rlib.Rf_setAttrib(made, attribute, value)
    rlib.Rf_unprotect(1)


# ---- out


class NotSerialisableError(Exception):
    """What JSON has nothing for; `where` is its place as an R user writes it: `$fit$terms`, `[[2]][3]`."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(what)
        self.what, self.where = what, where

    def inside(self, step: str) -> "NotSerialisableError":
        """The same, seen from one level further out."""
        return NotSerialisableError(self.what, step + self.where)

    def __str__(self) -> str:
        return f"result{self.where} {self.what}, which JSON cannot hold"


to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Reader:
    """Reads R objects into what `to_json` takes. The object is protected by the caller.

    `as_text` gives the ISO 8601 texts of R dates and times; with `unbox`, vectors of length one become scalars.
    """

    def __init__(self, as_text: Callable[[SEXP], SEXP], *, unbox: bool) -> None:
        self._as_text = as_text
        self._unbox = unbox

    def value(self, x: SEXP) -> Any:
        """What the caller gets for this object."""
        kind, classes = kind_of(x), classes_of(x)
        if kind == rlib.NILSXP:
            return None
        if kind == rlib.VECSXP and not classes & {"data.frame", "POSIXlt"}:
            names = rlib.Rf_getAttrib(x, NAMES)
            return self._items(x, classes) if names == rlib.R_NilValue else self._object(x, strings_of(names))
        items = self._items(x, classes)
        if len(items) != 1:
            return items
        if "json" in classes:  # jsonlite::toJSON made it
            return self._parsed(items[0])
        alone = self._unbox and not classes & {"data.frame", "AsIs"} and not dims_of(x)
        return items[0] if alone or "scalar" in classes else items

    def results(self, x: SEXP, of_condition: Callable[[SEXP], Exception]) -> list[Any]:
        """What a batch hook returned, one by one: a list's elements, a vector's, a matrix's or data frame's rows.

        Instead of a list's element that is a condition there is what `of_condition` makes of it, and instead of one
        that JSON cannot hold, the exception.
        """
        classes, dims = classes_of(x), dims_of(x)
        if "condition" in classes:
            raise NotSerialisableError("is a condition, not a list of results")
        if x.sxpinfo.type == rlib.VECSXP and not dims and not classes & {"data.frame", "POSIXlt"}:
            return [self._result(rlib.VECTOR_ELT(x, i), of_condition) for i in range(rlib.Rf_xlength(x))]
        items = self._items(x, classes)
        if "data.frame" in classes:
            return [[row] for row in items]
        if self._unbox or x.sxpinfo.type == rlib.VECSXP or dims:
            return items
        return [[item] for item in items]

    def _result(self, x: SEXP, of_condition: Callable[[SEXP], Exception]) -> Any:
        try:
            return of_condition(x) if "condition" in classes_of(x) else self.value(x)
        except Exception as error:  # a class attribute may be on anything
            return error

    def _items(self, x: SEXP, classes: frozenset[str]) -> list[Any]:
        """The elements of a vector or list, the rows of a matrix or data frame."""
        kind = kind_of(x)
        if "data.frame" in classes:
            if kind != rlib.VECSXP:
                raise NotSerialisableError("is of class data.frame, but not a list")
            return self._records(x)
        if classes & {"Date", "POSIXct", "POSIXlt"}:
            text = rlib.Rf_protect(self._as_text(x))
            try:
                return strings_of(text)
            finally:
                rlib.Rf_unprotect(1)
        if kind == rlib.REALSXP:
            items = _integers64(x) if "integer64" in classes else _doubles(x)
        elif kind == rlib.INTSXP:
            items = _labels(x) if "factor" in classes else _integers(x)
        elif kind == rlib.STRSXP:
            items = strings_of(x)
        elif kind == rlib.LGLSXP:
            items = [None if v is None else bool(v) for v in _integers(x)]
        elif kind == rlib.NILSXP:
            items = []
        else:
            items = self._elements(x)
        return _nested(items, dims_of(x))

    def _elements(self, x: SEXP) -> list[Any]:
        elements = []
        for i in range(rlib.Rf_xlength(x)):
            try:
                elements.append(self.value(rlib.VECTOR_ELT(x, i)))
            except NotSerialisableError as error:
                raise error.inside(f"[[{i + 1}]]") from None
        return elements

    def _object(self, x: SEXP, names: list[str | None]) -> Any:
        if names and not any(names):
            return self._elements(x)
        _check_names(names, "element")
        members = {}
        for i, name in enumerate(names):
            try:
                members[name] = self.value(rlib.VECTOR_ELT(x, i))
            except NotSerialisableError as error:
                raise error.inside(f"${name}") from None
        return members

    @staticmethod
    def _parsed(text: str | None) -> Any:
        try:
            return _decode(text or "null")
        except ValueError as error:
            raise NotSerialisableError(f"is of class json, but not JSON ({error})") from error

    def _records(self, x: SEXP) -> list[Any]:
        names = strings_of(rlib.Rf_getAttrib(x, NAMES))
        _check_names(names, "column")
        columns = []
        for i, name in enumerate(names):
            column = rlib.VECTOR_ELT(x, i)
            try:
                columns.append(self._items(column, classes_of(column)))
            except NotSerialisableError as error:
                raise error.inside(f"${name}") from None
        if not columns:
            return [{} for _ in range(rlib.Rf_length(rlib.Rf_getAttrib(x, _ROW_NAMES)))]
        if len(set(map(len, columns))) > 1:
            raise NotSerialisableError("has columns of different lengths")
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


_READABLE = frozenset((rlib.NILSXP, rlib.LGLSXP, rlib.INTSXP, rlib.REALSXP, rlib.STRSXP, rlib.VECSXP))
_OTHERS = {
    **dict.fromkeys((rlib.CLOSXP, rlib.BUILTINSXP, rlib.SPECIALSXP), "a function"),
    rlib.ENVSXP: "an environment",
    rlib.CPLXSXP: "of complex numbers",
    rlib.RAWSXP: "of raw bytes",
    rlib.EXTPTRSXP: "an external pointer",
    rlib.SYMSXP: "a name",
    rlib.LANGSXP: "a call or formula",
    rlib.EXPRSXP: "an expression",
    rlib.LISTSXP: "a pairlist",
}


def kind_of(x: SEXP) -> int:
    """The number of the object's type, if it is one that JSON has something for."""
    kind = x.sxpinfo.type
    if x.sxpinfo.gp & _S4_BIT:
        raise NotSerialisableError("is an S4 object")
    if kind not in _READABLE:
        raise NotSerialisableError("is " + _OTHERS.get(kind, "of R's own workings"))
    return kind


def classes_of(x: SEXP) -> frozenset[str]:
    """What inherits() would say of the object, but for implicit classes."""
    # Of the struct behind x, rpy2 3.5 declares only the type and gp where R has them: no x.sxpinfo.obj, no x.attrib.
    if rlib.ATTRIB(x) == rlib.R_NilValue:
        return frozenset()
    return frozenset(strings_of(rlib.Rf_getAttrib(x, _CLASS)))


def dims_of(x: SEXP) -> list[int]:
    """The dimensions; none for what has none."""
    dims = rlib.Rf_getAttrib(x, DIM)
    return [] if dims == rlib.R_NilValue else ffi.unpack(rlib.INTEGER(dims), rlib.Rf_length(dims))


def _nested(flat: list[Any], dims: list[int]) -> list[Any]:
    """Rows of rows of what R has column by column."""
    if len(dims) < 2:
        return flat
    return [_nested(flat[i :: dims[0]], dims[1:]) for i in range(dims[0])]


def _doubles(x: SEXP) -> list[Any]:
    values = ffi.unpack(rlib.REAL(x), rlib.Rf_xlength(x))
    if math.isfinite(sum(values)):  # one NaN or infinity makes the sum one
        return values
    for i, v in enumerate(values):
        if math.isinf(v):
            raise NotSerialisableError("is Inf" if v > 0 else "is -Inf", f"[{i + 1}]")
    return [None if math.isnan(v) else v for v in values]


def _integers(x: SEXP) -> list[Any]:
    return _without(_NA_INTEGER, ffi.unpack(ffi.cast("int *", rlib.DATAPTR(x)), rlib.Rf_xlength(x)))


def _integers64(x: SEXP) -> list[Any]:
    return _without(_NA_INTEGER64, ffi.unpack(ffi.cast("int64_t *", rlib.REAL(x)), rlib.Rf_xlength(x)))


def _without(na: int, values: list[Any]) -> list[Any]:
    return [None if v == na else v for v in values] if na in values else values


def _labels(x: SEXP) -> list[Any]:
    labels = dict(enumerate(strings_of(rlib.Rf_getAttrib(x, _LEVELS)), 1))
    return [labels.get(code) for code in _integers(x)]


def strings_of(x: SEXP) -> list[Any]:
    """R keeps one copy of each text, so each is decoded once."""
    if x.sxpinfo.type != rlib.STRSXP:
        if x == rlib.R_NilValue:
            return []
        raise NotSerialisableError("has labels or names that are not text")
    pointers = ffi.unpack(ffi.cast("SEXP *", rlib.DATAPTR(x)), rlib.Rf_xlength(x))
    texts = {pointer: _text(pointer) for pointer in set(pointers)}
    return [texts[pointer] for pointer in pointers]


def _text(char: SEXP) -> str | None:
    if char == rlib.R_NaString:
        return None
    # What R calls latin1 is Windows-1252 wherever the two differ. All else is UTF-8, or bytes of no known meaning.
    encoding = "cp1252" if rlib.Rf_getCharCE(char) == rlib.CE_LATIN1 else "utf-8"
    return ffi.string(rlib.R_CHAR(char)).decode(encoding, "replace")


def _check_names(names: list[str | None], what: str) -> None:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not name:
            raise NotSerialisableError(f"has names, but not for {what} {i + 1}")
        if name in seen:
            raise NotSerialisableError(f"has more than one {what} called {name!r}")
        seen.add(name)
