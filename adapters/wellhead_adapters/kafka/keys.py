"""A record's key as an attribute's value, as Knative's Java data plane reads it. Pure."""

from __future__ import annotations

import base64
import enum
import math
import struct
from decimal import Decimal
from typing import Final


class KeyType(enum.Enum):
    """What the octets of a key are; the label ``kafkasources.sources.knative.dev/key-type``."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BYTE_ARRAY = "byte-array"


_DECIMAL_FROM: Final = 1e-3
_DECIMAL_BELOW: Final = 1e7


def key_value(kind: KeyType, key: bytes) -> str | int:
    """The value of ``key``; text where its length is not that of its type. Raises UnicodeDecodeError: it is no text."""
    if kind is KeyType.BYTE_ARRAY:
        return base64.b64encode(key).decode()
    if kind is KeyType.INT and len(key) == 4:
        return int.from_bytes(key, "big", signed=True)
    if kind is KeyType.FLOAT and len(key) in (4, 8):
        return java_float(key)
    return key.decode()


def java_float(octets: bytes) -> str:
    """A big-endian float of 4 or 8 octets as Java's ``Float.toString`` and ``Double.toString`` write it (JDK 19 on)."""
    number: float = struct.unpack(">f" if len(octets) == 4 else ">d", octets)[0]
    if math.isnan(number):
        return "NaN"
    sign = "-" if math.copysign(1, number) < 0 else ""
    if math.isinf(number):
        return f"{sign}Infinity"
    if number == 0:
        return f"{sign}0.0"
    number = abs(number)
    digits, exponent = _shortest(number, single=len(octets) == 4)
    if _DECIMAL_FROM <= number < _DECIMAL_BELOW:
        return sign + _decimal(digits, exponent)
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{exponent}"


def _shortest(number: float, *, single: bool) -> tuple[str, int]:
    """The fewest digits that read back as the same number, and the power of ten of the first of them.

    Where one digit would do, Java looks for the nearest of two: the least double is 4.9E-324, not 5.0E-324.
    """
    text = f"{number:.1e}"
    if single:
        text = next(short for precision in range(1, 9) if _reads_back(short := f"{number:.{precision}e}", number))
    elif float(text) != number:
        text = repr(number)
    parts = Decimal(text).normalize().as_tuple()
    digits = "".join(map(str, parts.digits))
    return digits, len(digits) - 1 + int(parts.exponent)


def _reads_back(text: str, number: float) -> bool:
    try:
        return bool(struct.unpack(">f", struct.pack(">f", float(text)))[0] == number)
    except OverflowError:  # rounded up beyond the largest float of 4 octets
        return False


def _decimal(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole = digits[: exponent + 1].ljust(exponent + 1, "0")
    return f"{whole}.{digits[exponent + 1 :] or '0'}"
