"""Tensors in the Python worker: between bytes on the link and nested lists or NumPy arrays.

Lies beside python_worker.py and is as that file: nothing but the standard library, the same for CPython 2.7 to 3.13. Of
NumPy it uses what the model has imported, or declares to want.
"""

import math
import struct
import sys

from python_values import PY2, TEXT, NoSuchOutput, Refusal, as_bytes, attempt, described, half_pair, nearer

# What `struct` and NumPy call the datatypes, little-endian; "" where they have none.
_NUMBERS = {
    "BOOL": ("?", "|b1"),
    "INT8": ("b", "|i1"),
    "INT16": ("h", "<i2"),
    "INT32": ("i", "<i4"),
    "INT64": ("q", "<i8"),
    "UINT8": ("B", "|u1"),
    "UINT16": ("H", "<u2"),
    "UINT32": ("I", "<u4"),
    "UINT64": ("Q", "<u8"),
    "FP16": ("e" if sys.version_info >= (3, 6) else "", "<f2"),
    "BF16": ("", ""),
    "FP32": ("f", "<f4"),
    "FP64": ("d", "<f8"),
}
_DATATYPES = {dtype[1:]: name for name, (_, dtype) in _NUMBERS.items() if dtype}
_INTEGERS = (int, type(sys.maxsize + 1))  # the second is 2.7's `long`; a bool is one, too
_MOST_DIMENSIONS = 32
_HEADER_BYTES = 900000  # that the outputs may take in a header of 1 MiB
_LONG = 1 << 16  # bytes that are not copied if they can be sent from where they are
_LENGTH = struct.Struct("<I")
_NAN = struct.unpack("<d", b"\0\0\0\0\0\0\xf8\x7f")[0]  # float("nan") of 2.7 is a negative one


class Tensors(dict):
    """What a model is called with: tensors by name. `parameters` are those that came beside them."""

    parameters = {}


# ---- in


def inputs(header, body, numpy, text_as_bytes):
    """The tensors of a call: NumPy arrays that write to `body` if `numpy` is given, else nested lists."""
    found, start = Tensors(), 0
    found.parameters = header.get("parameters") or {}
    if PY2 and text_as_bytes:
        found.parameters = as_bytes(found.parameters)
    for one in header["tensors"]:
        name, datatype, shape, size = one["name"], one["datatype"], one["shape"], one["size"]
        name = as_bytes(name) if PY2 and text_as_bytes else name
        if datatype == "BYTES":
            flat = texts(bytes(body[start : start + size]), text_as_bytes)
            found[name] = _object_array(numpy, flat, shape) if numpy else _nested(flat, shape)
        elif numpy:
            found[name] = _array(numpy, datatype, shape, body, start)
        else:
            found[name] = _nested(numbers(datatype, body, start, _count(shape)), shape)
        start += size
    return found


def _count(shape):
    count = 1
    for size in shape:
        count *= size
    return count


def _nested(flat, shape):
    """Rows of rows, as deep as the shape is long."""
    for depth in range(len(shape) - 1, 0, -1):
        size = shape[depth]
        flat = [flat[row * size : (row + 1) * size] for row in range(_count(shape[:depth]))]
    return flat if shape else flat[0]


def numbers(datatype, body, start, count):
    """So many elements of any datatype but BYTES."""
    code = _NUMBERS[datatype][0]
    if code:
        return list(struct.unpack_from("<%d%s" % (count, code), body, start))
    read = _of_half if datatype == "FP16" else _of_brain
    return [read(bits) for bits in struct.unpack_from("<%dH" % count, body, start)]


def texts(data, text_as_bytes):
    """The elements of BYTES: all as text if all are UTF-8, unless bytes are wanted."""
    elements, start = [], 0
    while start < len(data):
        start += _LENGTH.size + _LENGTH.unpack_from(data, start)[0]
        elements.append(start)
    elements = [data[_begin(elements, index) : end] for index, end in enumerate(elements)]
    if text_as_bytes:
        return elements
    decoded = attempt(lambda: [element.decode("utf-8") for element in elements])
    return elements if decoded is None else decoded


def _begin(ends, index):
    return (ends[index - 1] if index else 0) + _LENGTH.size


def _array(numpy, datatype, shape, body, start):
    count = _count(shape)
    if datatype == "BF16":  # the upper half of a FP32
        bits = _array(numpy, "UINT16", shape, body, start).astype("<u4")
        return (bits << 16).view("<f4")
    dtype = _NUMBERS[datatype][1]
    if not count:
        return numpy.empty(shape, dtype)
    array = numpy.frombuffer(body, "|u1" if datatype == "BOOL" else dtype, count, start).reshape(shape)
    if datatype == "BOOL":
        array = array != 0
    return array if array.flags.aligned else array.copy()


def _object_array(numpy, flat, shape):
    array = numpy.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)


# ---- out


def outputs(result, wanted, declared):
    """A result as (fields of the header, body). `wanted` are names, or none for all; `declared` are tensors."""
    pairs = _named(result)
    if pairs is None:
        pairs = [(only_name(declared), result)]
        return collected(pairs, wanted, declared, lambda _, value, datatype: _packed(value, datatype, "result"))
    return collected(pairs, wanted, declared, lambda name, v, datatype: _packed(v, datatype, "result['%s']" % name))


def only_name(declared):
    """The name of a result that has none."""
    return declared[0]["name"] if len(declared) == 1 else TEXT("output")


def collected(pairs, wanted, declared, packed):
    """The outputs of a result's (name, value) as (fields of the header, body).

    `packed` makes (datatype, shape, bytes) of a name, its value, and the datatype that is declared for it or None.
    """
    values, specs = dict(pairs), {one["name"]: one for one in declared}
    if len(values) < len(pairs):
        raise Refusal("result has outputs of the same name")
    names = wanted or [one["name"] for one in declared] or [name for name, _ in pairs]
    headers, parts, size = [], [], 0
    for name in names:
        if name not in values:
            if name in specs:
                raise Refusal("the model declares the output '%s' and has not returned it" % name)
            known = ", ".join(["'%s'" % each for each, _ in pairs]) or "none"
            raise NoSuchOutput("the model has no output '%s'; it has returned %s" % (name, known))
        spec = specs.get(name, {})
        datatype, shape, data = packed(name, values[name], spec.get("datatype"))
        shape = list(shape) or ([] if spec.get("shape") == [] else [1])
        headers.append({"name": name, "datatype": datatype, "shape": shape, "size": len(data)})
        parts.append(data)
        size += 6 * len(name) + 21 * len(shape) + 100
    if size > _HEADER_BYTES:
        raise Refusal("result has %d outputs, whose names are too long for one answer" % len(headers))
    if len(parts) == 1:
        return {"tensors": headers}, parts[0]
    # On 2.7 there is no other way from a memoryview to bytes.
    return {"tensors": headers}, b"".join([part if isinstance(part, bytes) else part.tobytes() for part in parts])


def _named(result):
    """Names and values of a dict, or of a data frame's columns; None for what has no names."""
    if isinstance(result, dict):
        return [(_name(name), value) for name, value in result.items()]
    if _is(result, "pandas", "DataFrame"):
        columns = enumerate(result.columns.tolist())
        return [(_name(name), result.iloc[:, index]) for index, name in columns]
    return None


def _name(key):
    name = attempt(key.decode, "utf-8") if isinstance(key, bytes) else key
    if not isinstance(name, TEXT) or not name or half_pair.search(name):  # the last for lone surrogates
        raise Refusal("result has a key that is %s; outputs have names that are text" % described(key))
    return name


def _packed(value, datatype, place):
    """A value as (datatype, shape, elements in bytes)."""
    array = _as_array(value)
    if array is not None and array.dtype.kind in "biuf":
        return _pack_array(array, datatype, place)
    if array is not None:
        shape = list(array.shape)
        flat = nearer(array.ravel()) if array.dtype.kind == "M" else array.ravel().tolist()
    else:
        shape, flat = _flattened(value, place)
    flat = [_plain(item, place) for item in flat]
    datatype = datatype or _datatype_of(flat, place)
    return datatype, shape, pack(flat, datatype, place)


def _as_array(value):
    """The NumPy array that a value is, or that its rows are of; None if it is none."""
    numpy = sys.modules.get("numpy")
    if type(value) is getattr(numpy, "ndarray", None):
        return value
    if numpy is None or _is(value, "numpy.ma", "MaskedArray"):
        return None
    if _is(value, "numpy", "generic", "ndarray"):
        return numpy.asarray(value)
    if _is(value, "pandas", "Series", "Index"):
        array = numpy.asarray(value)
        return array if array.dtype.kind in "biuf" else None
    if isinstance(value, (list, tuple)) and value and all(_is(row, "numpy", "generic", "ndarray") for row in value):
        array = attempt(numpy.array, value) if len({row.shape for row in value}) == 1 else None
        return array if array is not None and array.dtype.kind in "biuf" else None
    return None


def _flattened(value, place):
    """The shape of nested lists, and their elements row by row."""
    shape, level = [], [_listed(value)]
    while level and all(isinstance(item, (list, tuple)) for item in level):
        sizes = {len(item) for item in level}
        if len(sizes) > 1 or len(shape) == _MOST_DIMENSIONS:
            raise _refusal(place, "has rows of different lengths" if len(sizes) > 1 else "has too many dimensions")
        shape.append(sizes.pop())
        level = [_listed(part) for item in level for part in item]
    if any(isinstance(item, (list, tuple)) for item in level):
        raise _refusal(place, "has rows beside single values")
    return shape, level


def _listed(value):
    """What holds several values as a list of them."""
    several = _is(value, "pandas", "Series", "Index", "Categorical") or _is(value, "numpy", "ndarray")
    return nearer(value) if several else value


def _plain(item, place):
    """An element as None, a number, text or bytes."""
    while not (item is None or isinstance(item, (TEXT, bytes, float) + _INTEGERS)):
        if isinstance(item, (dict, list, tuple)):
            raise _refusal(place, "has %s in it" % described(item))
        nearer_item = attempt(nearer, item)
        if nearer_item is None and type(item).__name__ not in ("NaTType", "NAType"):
            raise _refusal(place, "is, or has in it, %s" % described(item))
        item = nearer_item
    return item


def _datatype_of(flat, place):
    """What nobody has declared: the datatype that holds all elements."""
    kinds = {_kind(item) for item in flat}
    if kinds == {"BYTES"} or kinds == {"BOOL"}:
        return kinds.pop()
    if "BYTES" in kinds:
        raise _refusal(place, "has text beside other values")
    if kinds and kinds <= {"BOOL", "INT64"}:
        return "UINT64" if min(flat) >= 0 and max(flat) >= 1 << 63 else "INT64"
    return "FP64"


def _kind(item):
    if isinstance(item, (TEXT, bytes)):
        return "BYTES"
    if isinstance(item, bool):
        return "BOOL"
    return "INT64" if isinstance(item, _INTEGERS) else "FP64"


def pack(flat, datatype, place):
    """None, numbers, text and bytes as elements of a datatype. Raises Refusal for what that does not hold."""
    if datatype == "BYTES":
        parts = []
        for item in flat:
            data = attempt(item.encode, "utf-8") if isinstance(item, TEXT) else item
            if not isinstance(data, bytes):
                raise _refusal(place, "has %s in it, where BYTES need text" % described(item))
            parts += [_LENGTH.pack(len(data)), data]
        return b"".join(parts)
    if any(isinstance(item, (TEXT, bytes)) for item in flat):
        raise _refusal(place, "has text in it, where %s needs numbers" % datatype)
    if datatype in ("FP16", "BF16", "FP32", "FP64"):
        flat = [_NAN if item is None else float(item) for item in flat]
    else:
        whole = [int(item) if item is not None and item - item == 0 else None for item in flat]
        if whole != flat or (datatype == "BOOL" and not set(whole) <= {0, 1}):
            raise _refusal(place, "has values in it that are not %s" % datatype)
        flat = [bool(item) for item in whole] if datatype == "BOOL" else whole
    try:
        code = _NUMBERS[datatype][0]
        if not code:
            write = _to_half if datatype == "FP16" else _to_brain
            code, flat = "H", [write(item) for item in flat]
        return struct.pack("<%d%s" % (len(flat), code), *flat)
    except (struct.error, OverflowError):
        raise _refusal(place, "has values in it that are out of the range of %s" % datatype)


def _pack_array(array, datatype, place):
    numpy = sys.modules["numpy"]
    own = _DATATYPES.get(array.dtype.str[1:])
    if own is None:  # a float of more than 8 bytes
        own, array = "FP64", array.astype("<f8")
    datatype = datatype or own
    if datatype == "BYTES":
        raise _refusal(place, "is of numbers, where BYTES need text")
    if datatype != own:
        array = _cast(numpy, array, datatype, place)
    dtype = _NUMBERS[datatype][1] or "<u2"
    if array.dtype.str != dtype:
        array = array.astype(dtype)
    if array.nbytes < _LONG:
        return datatype, array.shape, array.tobytes()
    return datatype, array.shape, memoryview(numpy.ascontiguousarray(array).reshape(-1).view("|u1"))


def _cast(numpy, array, datatype, place):
    """The array with the datatype that is declared, if that holds its values."""
    with numpy.errstate(all="ignore"):
        cast = array.astype(_NUMBERS[datatype][1] or "<f4")
        if cast.dtype.kind == "f":
            if (numpy.isinf(cast) & ~numpy.isinf(array.astype("<f8"))).any():
                raise _refusal(place, "has values in it that are out of the range of %s" % datatype)
        elif not (cast == array).all() or (array.dtype.kind == "f" and not numpy.isfinite(array).all()):
            raise _refusal(place, "has values in it that are not %s" % datatype)
        elif cast.dtype.kind in "iu" and ((cast < 0) != (array < 0)).any():  # a uint64 beyond int64, and back
            raise _refusal(place, "has values in it that are out of the range of %s" % datatype)
        if datatype == "BF16":
            bits = cast.view("<u4")
            nan, cast = numpy.isnan(cast), ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
            if ((cast & 0x7FFF == 0x7F80) & numpy.isfinite(array)).any():
                raise _refusal(place, "has values in it that are out of the range of BF16")
            cast = numpy.where(nan, 0x7FC0, cast)
    return cast


def _is(value, module, *names):
    """Whether `value` is of one of these classes, if the model has imported `module`."""
    module = sys.modules.get(module)
    return module is not None and isinstance(value, tuple([getattr(module, name, ()) for name in names]))


def _refusal(place, what):
    return Refusal("%s %s, and is no tensor" % (place, what))


# ---- halves of floats, which `struct` does not have: FP16 before Python 3.6, BF16 ever


def _of_half(bits):
    exponent, fraction = bits >> 10 & 31, bits & 1023
    if exponent == 31:
        value = _NAN if fraction else float("inf")
    else:
        value = math.ldexp(fraction + 1024, exponent - 25) if exponent else math.ldexp(fraction, -24)
    return -value if bits >> 15 else value


def _to_half(value):
    """Rounded to the nearest, to the even one of two. Raises OverflowError."""
    sign, size = (0x8000 if math.copysign(1, value) < 0 else 0), abs(value)
    if size != size:
        return sign | 0x7E00
    if size - size != 0:
        return sign | 0x7C00
    if not size:
        return sign
    exponent = max(math.frexp(size)[1] - 11, -24)  # of the last bit
    scaled = math.ldexp(size, -exponent)
    whole = int(scaled)
    rest = scaled - whole
    whole += rest > 0.5 or (rest == 0.5 and whole & 1)
    bits = whole + (exponent + 24 << 10)  # the leading 1 of `whole` adds one to the exponent
    if bits >= 0x7C00:
        raise OverflowError
    return sign | bits


def _of_brain(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def _to_brain(value):
    """Rounded to the nearest, to the even one of two. Raises OverflowError."""
    if value != value:
        return 0x7FC0
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    rounded = bits + 0x7FFF + (bits >> 16 & 1) >> 16
    if rounded & 0x7FFF == 0x7F80 and value - value == 0:
        raise OverflowError
    return rounded
