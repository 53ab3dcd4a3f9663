"""Which symbols were wrong, as npz: written by numpy, read without it, so that no header is believed or evaluated."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from amb.results.archive import Budget, Refused, open_archive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Wrong = NDArray[np.uint8]

_NAME: Final = re.compile(r"([0-9a-f]{8,64})\.npy")
_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \(([1-9][0-9]{0,8}), ([1-9][0-9]{0,8})\), \} *\n",
    re.DOTALL,
)
"""Of a table of bytes (numpy.lib.format, version 1.0); no other is written."""


def pack_errors(errors: Mapping[str, Wrong]) -> bytes:
    """The tables as npz, by the digest of their evidence."""
    import numpy as np

    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(errors)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def unpack_errors(data: bytes, budget: Budget) -> dict[str, Wrong]:
    """Tables of zeros and ones by the digest of their evidence. Raises Refused, BadZipFile."""
    found = {}
    with open_archive(io.BytesIO(data), budget) as archive:
        for name in archive.namelist():
            digest = _NAME.fullmatch(name)
            if not digest:
                raise Refused(f"errors.npz holds {name!r:.120}")
            found[digest[1]] = _parse_array(archive.read(name), name)
    return found


def _parse_array(data: bytes, name: str) -> Wrong:
    """One table, at least a trial of a symbol. Raises Refused for any other array, and where its size is another."""
    import numpy as np

    header = _HEADER.match(data)
    if not header or int.from_bytes(header[1], "little") != header.end() - 10:
        raise Refused(f"errors.npz, {name}: not a table of zeros and ones")
    shape = int(header[2]), int(header[3])
    array = np.frombuffer(data, np.uint8, offset=header.end())
    if array.size != shape[0] * shape[1]:
        raise Refused(f"errors.npz, {name}: it says {shape[0]} x {shape[1]} and holds {array.size:,} bytes")
    if array.max() > 1:
        raise Refused(f"errors.npz, {name}: not a table of zeros and ones")
    return array.reshape(shape)
