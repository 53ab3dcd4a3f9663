"""Files that are called images and are none, or none that anybody wants."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Final

from PIL import Image


def image_inputs() -> list[tuple[str, bytes]]:
    """A name and the bytes of a file `a.jpg` among sound ones."""
    sound = {form: _encode(form) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF")}
    found = [(f"{form} cut", data[: len(data) // 2]) for form, data in sound.items()]
    found += [(f"{form} flipped", data[:30] + b"\xff" * 8 + data[38:]) for form, data in sound.items()]
    found += [(f"{form} and more", data + b"\0" * 100_000) for form, data in sound.items()]
    return found + list(_OTHERS.items())


def _encode(form: str) -> bytes:
    buffer = BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(buffer, form)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def _png(width: int, height: int, *more: bytes, depth: int = 8, colour: int = 0, data: bytes = b"") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">2L5B", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _exif(orientation: bytes) -> bytes:
    """A JPEG with a broken entry where the orientation belongs."""
    body = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01" + orientation
    sound = _encode("JPEG")
    return sound[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + sound[2:]


_OTHERS: Final = {
    "empty": b"",
    "text": b"hello",
    "zeros": b"\0" * 10_000,
    "bomb": _png(60_000, 60_000, data=b"\0" * 1000),
    "large": _png(13_000, 13_000, data=b"\0" * 13_001 * 13_000),
    "tall": _png(1, 2**30),
    "less": _png(2**32 - 1, 2**32 - 1),
    "no pixels": _png(0, 0),
    "16 bits": _png(4, 4, depth=16, data=b"\0" * 36),
    "text bomb": _png(4, 4, _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**28, 9)), data=b"\0" * 20),
    "profile bomb": _png(4, 4, _chunk(b"iCCP", b"a\0\0" + zlib.compress(b"x" * 2**28, 9)), data=b"\0" * 20),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(id) system\n",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "TIFF": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
    "PDF": b"%PDF-1.4\n",
    "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    "numpy": b"\x93NUMPY\x01\0",
    "frames 5,000": b"GIF89a\x04\0\x04\0\x80\0\0\0\0\0\xff\xff\xff"
    + b",\0\0\0\0\x04\0\x04\0\0\x02\x02L\x01\0" * 5000
    + b";",
    "orientation list": _exif(b"\x03\0\xff\xff\xff\xff\xff\xff\xff\xff"),
    "orientation text": _exif(b"\x02\0\x04\0\0\0abcd"),
    "orientation large": _exif(b"\x04\0\x01\0\0\0\xff\xff\xff\xff"),
    "orientation cut": _exif(b""),
}
