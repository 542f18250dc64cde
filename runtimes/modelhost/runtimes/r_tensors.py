"""Tensors between the link and R, for the R worker: in bulk, through R's C interface.

in    rank 0 and 1 → vector, 2 → matrix, more → array; R has its elements column by column, and aperm() turns them
      BOOL → logical; INT8 to INT32, UINT8, UINT16 → integer; all other numbers → double
      BYTES → character; a list of raw vectors where not all are text that R can hold, or bytes are wanted

out   named list, data frame → outputs by name; anything else → one
      logical → BOOL, integer → INT32, double → FP64, integer64 → INT64; with another datatype that is declared, that
      character, factor, dates, times, raw vectors, lists of these → BYTES
      NA → NaN in floats, else refused

As in r_values.py, objects that are made are returned unprotected.
"""

import struct
from array import array
from collections.abc import Callable
from math import prod
from typing import Any

from python_tensors import collected, numbers, only_name, pack, texts
from python_values import NoSuchOutput, Refusal
from r_values import (
    DIM,
    NAMES,
    NotSerialisableError,
    Reader,
    characters,
    classes_of,
    dims_of,
    kind_of,
    set_attribute,
    strings_of,
    to_r,
)
from rpy2.rinterface_lib.openrlib import ffi, rlib

__all__ = ["NoSuchOutput", "Refusal", "TensorReader", "tensors_to_r"]

SEXP = Any  # a cffi pointer to an R object
Permute = Callable[[SEXP], SEXP]  # R's aperm(): the dimensions in the opposite order

_NA = {"BOOL": -(2**31), "INT32": -(2**31), "INT64": -(2**63)}
_CODES = {"BOOL": "i", "INT32": "i", "INT64": "q", "FP64": "d"}  # of `struct`, for what R has in memory
_FLOATS = {"FP16", "BF16", "FP32", "FP64"}
_TRUTH = bytes([0]) + bytes([1]) * 255
_PARAMETERS = rlib.Rf_install(b"parameters")
_TEXTUAL = {"factor", "Date", "POSIXct", "POSIXlt"}
_OWN = {rlib.LGLSXP: "BOOL", rlib.INTSXP: "INT32", rlib.REALSXP: "FP64"}


# ---- in


def tensors_to_r(header: dict[str, Any], body: bytes | bytearray, permute: Permute, *, text_as_bytes: bool) -> SEXP:
    """The named list of a call's tensors; what came beside them is its attribute `parameters`. Raises ValueError."""
    tensors, start = header["tensors"], 0
    made = rlib.Rf_protect(rlib.Rf_allocVector(rlib.VECSXP, len(tensors)))
    try:
        for i, one in enumerate(tensors):
            data = bytes(memoryview(body)[start : start + one["size"]])
            start += one["size"]
            shape = one["shape"]
            if any(size >= 2**31 for size in shape):
                raise ValueError(f"tensor {one['name']!r} has too long a dimension")
            rlib.SET_VECTOR_ELT(made, i, _shaped(_vector(one["datatype"], data, shape, text_as_bytes), shape, permute))
        set_attribute(made, NAMES, characters([one["name"] for one in tensors]))
        if header.get("parameters"):
            set_attribute(made, _PARAMETERS, to_r(header["parameters"]))
    finally:
        rlib.Rf_unprotect(1)
    return made


def _shaped(vector: SEXP, shape: list[int], permute: Permute) -> SEXP:
    if len(shape) < 2:
        return vector
    rlib.Rf_protect(vector)
    try:
        set_attribute(vector, DIM, to_r(shape[::-1]))
        return permute(vector)
    finally:
        rlib.Rf_unprotect(1)


def _vector(datatype: str, data: bytes, shape: list[int], text_as_bytes: bool) -> SEXP:
    """The elements in their order."""
    if datatype == "BYTES":
        elements = texts(data, text_as_bytes)
        if all(isinstance(element, str) and "\0" not in element for element in elements):
            return characters(elements)
        return _raws([element.encode() if isinstance(element, str) else element for element in elements])
    if datatype == "FP64" or (datatype == "INT32" and not _has_na(data, datatype)):
        return _filled(rlib.REALSXP if datatype == "FP64" else rlib.INTSXP, data)
    if datatype == "BOOL":
        return _filled(rlib.LGLSXP, array("i", list(data.translate(_TRUTH))))
    values = numbers(datatype, data, 0, prod(shape))
    small = datatype in ("INT8", "INT16", "UINT8", "UINT16")
    return _filled(rlib.INTSXP if small else rlib.REALSXP, array("i" if small else "d", values))


def _has_na(data: bytes, datatype: str) -> bool:
    """Whether a number is among these that R takes for NA."""
    if datatype not in _NA:
        return False
    code, na = _CODES[datatype], _NA[datatype]
    return struct.pack(code, na) in data and na in memoryview(data).cast(code)


def _filled(kind: int, data: "bytes | array[Any]") -> SEXP:
    width = 8 if kind == rlib.REALSXP else 4
    size = len(data) if isinstance(data, bytes) else len(data) * data.itemsize
    made = rlib.Rf_allocVector(kind, size // width)
    ffi.memmove(rlib.DATAPTR(made), data, size)
    return made


def _raws(elements: list[bytes]) -> SEXP:
    made = rlib.Rf_protect(rlib.Rf_allocVector(rlib.VECSXP, len(elements)))
    try:
        for i, element in enumerate(elements):
            raw = rlib.Rf_allocVector(rlib.RAWSXP, len(element))
            ffi.memmove(rlib.DATAPTR(raw), element, len(element))
            rlib.SET_VECTOR_ELT(made, i, raw)
    finally:
        rlib.Rf_unprotect(1)
    return made


# ---- out


class TensorReader:
    """Reads what a model returned as tensors. The object is protected by the caller."""

    def __init__(self, permute: Permute, texts_of: Reader, declared: list[dict[str, Any]]) -> None:
        self._permute = permute
        self._texts_of = texts_of
        self._declared = declared

    def outputs(self, result: SEXP, wanted: list[str] | None) -> tuple[dict[str, Any], bytes]:
        """The outputs as (fields of the header, body). Raises Refusal, NotSerialisableError."""
        if result.sxpinfo.type == rlib.VECSXP and "POSIXlt" not in classes_of(result):
            names = strings_of(rlib.Rf_getAttrib(result, NAMES))
            if any(names):
                if not all(names):
                    raise Refusal("result has outputs without a name")
                pairs = [(name, rlib.VECTOR_ELT(result, i)) for i, name in enumerate(names)]
                return collected(pairs, wanted, self._declared, lambda n, x, d: self._tensor(x, d, f"result${n}"))
        pairs = [(only_name(self._declared), result)]
        return collected(pairs, wanted, self._declared, lambda _, x, d: self._tensor(x, d, "result"))

    def _tensor(self, x: SEXP, datatype: str | None, place: str) -> tuple[str, list[int], bytes]:
        """Datatype, shape and elements of an R object."""
        try:
            own, shape, values = self._elements(x)
        except NotSerialisableError as error:
            raise Refusal(f"{place}{error.where} {error.what}, and is no tensor") from None
        datatype = datatype or own
        if isinstance(values, bytes):
            if own == datatype:
                return datatype, shape, values
            values = memoryview(values).cast(_CODES[own]).tolist()
        if None in values and datatype not in _FLOATS:
            raise Refusal(f"{place} has NA in it, which {datatype} cannot hold")
        return datatype, shape, pack(values, datatype, place)

    def _elements(self, x: SEXP) -> tuple[str, list[int], "bytes | list[Any]"]:
        """The datatype nearest to an R object, its shape, and its elements row by row: as bytes, or one by one."""
        kind, classes, dims = x.sxpinfo.type, classes_of(x), dims_of(x)
        if kind == rlib.RAWSXP:
            return "BYTES", [1], [_bytes(x, 1)]
        kind_of(x)  # raises for what R has no elements of
        if kind == rlib.NILSXP or "data.frame" in classes:
            raise NotSerialisableError("is NULL" if kind == rlib.NILSXP else "is a data frame within another value")
        if classes & _TEXTUAL and len(dims) < 2:
            values = self._texts_of.value(x)
            return "BYTES", [len(values)], values
        turned = rlib.Rf_protect(self._permute(x) if len(dims) > 1 else x)
        try:
            shape = dims or [rlib.Rf_xlength(x)]
            if kind == rlib.VECSXP:
                return "BYTES", shape, [_raw(rlib.VECTOR_ELT(turned, i)) for i in range(prod(shape))]
            if kind == rlib.STRSXP:
                return "BYTES", shape, strings_of(turned)
            own = "INT64" if "integer64" in classes else _OWN[kind]
            data = _bytes(turned, 8 if kind == rlib.REALSXP else 4)
        finally:
            rlib.Rf_unprotect(1)
        if own == "BOOL" or _has_na(data, own):
            return own, shape, [None if v == _NA[own] else v for v in memoryview(data).cast(_CODES[own])]
        return own, shape, data


def _raw(x: SEXP) -> bytes:
    if x.sxpinfo.type != rlib.RAWSXP:
        raise NotSerialisableError("is a list of what are no raw vectors (unlist() makes a vector of it)")
    return _bytes(x, 1)


def _bytes(x: SEXP, width: int) -> bytes:
    """The memory of a vector."""
    return bytes(ffi.buffer(ffi.cast("char *", rlib.DATAPTR(x)), rlib.Rf_xlength(x) * width))
