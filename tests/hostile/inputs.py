"""The table of hostile inputs: a runner, a name and bytes. To try one more, add a line; `tests/hostile/runners.py` says how."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tests.hostile.bundles import LARGE, bundle_inputs
from tests.hostile.cards import list_cards
from tests.hostile.images import image_inputs


class Input(NamedTuple):
    """One hostile input."""

    runner: str
    name: str
    data: bytes
    says: str = ""
    """What its error has to say; nothing where it may pass, or be refused in any words."""

    def __str__(self) -> str:
        return f"{self.runner}: {self.name}"


_BASE: Final = "suites: tiny\nmethods: activemark\n"
_AXIS: Final = list(range(1, 4001))
_SHARES: Final = [round(n / 4001, 6) for n in range(4000)]
_WIDE: Final = f"{{prune: {{amount: {_SHARES}}}}}"

YAML: Final = {
    "nested 250": ("a: " + "[" * 250 + "]" * 250, "nested too deeply"),
    "nested 33 blocks": ("".join(f"{' ' * n}a:\n" for n in range(40)), "nested too deeply"),
    "nested mappings": ("{a: " * 300 + "1" + "}" * 300, "nested too deeply"),
    "nested 300,000": ("[" * 300_000, "nested too deeply"),
    "hexadecimal": (f"{_BASE}seeds: 0x{'f' * 8000}\n", "is a number of more than 100 letters"),
    "binary": (f"{_BASE}seeds: 0b{'1' * 50_000}\n", "is a number of more than 100 letters"),
    "octal": (f"{_BASE}seeds: 0{'7' * 50_000}\n", "is a number of more than 100 letters"),
    "sexagesimal": (f"{_BASE}seeds: 1{':59' * 5000}\n", "is a number of more than 100 letters"),
    "sexagesimal bomb": (f"{_BASE}seeds: 1{':59' * 300_000}\n", "is a number of more than 100 letters"),
    "sexagesimal fraction": (f"{_BASE}alpha: 1{':59' * 300_000}.5\n", "is a number of more than 100 letters"),
    "decimal": (f"{_BASE}seeds: {'9' * 5000}\n", "is a number of more than 100 letters"),
    "number as a key": (f"{_BASE}0x{'f' * 800}: 1\n", "is a number of more than 100 letters"),
    "number told": (f"{_BASE}seeds: !!int 'x{'9' * 9000}'\n", "is a number of more than 100 letters"),
    "infinity": (f"{_BASE}alpha: .inf\n", "a number between 0 and 1"),
    "not a number": (f"{_BASE}alpha: .nan\n", "a number between 0 and 1"),
    "exponent": (f"{_BASE}alpha: 1.0e+999999999\n", "a number between 0 and 1"),
    "letter past the last": ('a: "\\U00110000"', "is not YAML"),
    "letter past the integers": ('a: "\\UFFFFFFFF"', "is not YAML"),
    "surrogate": (f'{_BASE}model: "tiny/\\ud800"\n', "has a control character in it"),
    "zero byte": (f'{_BASE}model: "file/a\\0b"\n', "has a control character in it"),
    "escape": (f'{_BASE}model: "file/\\e[2J"\n', "has a control character in it"),
    "line break": (f'{_BASE}model: "file/a\\nb"\n', "has a control character in it"),
    "long reference": (f"{_BASE}model: file/{'x' * 5000}\n", "at most 1024 letters"),
    "version": ("%YAML 1." + "9" * 5000 + "\n---\na: 1", "is not YAML"),
    "version 9": ("%YAML 9.9\n---\na: 1", "is not YAML"),
    "tag": (f"{_BASE}seeds: !!python/object/apply:os.system [id]\n", "only plain values"),
    "tag new": (f"{_BASE}seeds: !!python/object/new:subprocess.Popen [[id]]\n", "only plain values"),
    "tag module": (f"{_BASE}seeds: !!python/module:antigravity\n", "only plain values"),
    "tag long": (f"{_BASE}seeds: !{'x' * 500_000} 1\n", "only plain values"),
    "tags 20,000": (_BASE + "seeds:\n" + "- !x 1\n" * 20_000, "more"),
    "binary data": (f"{_BASE}seeds: !!binary aGk=\n", "only plain values"),
    "set": (f"{_BASE}seeds: !!set {{a, b}}\n", "only plain values"),
    "merge": ("a: &a {suites: tiny}\n<<: *a\nmethods: activemark\n", "only plain values"),
    "date": (f"{_BASE}seeds: 2001-01-01\n", "a seed is a whole number"),
    "key list": ("[a, b]: 1\n", "cannot be a key"),
    "key mapping": ("{a: b}: 1\n", "cannot be a key"),
    "key null": ("~: 1\n", "there is no key"),
    "key long": (f"{'k' * 1000}: 1\n", "there is no key"),
    "key very long": (f"? {'k' * 900_000}\n: 1\n", "there is no key"),
    "keys 30,000": (_BASE + "".join(f"seds{n}: 1\n" for n in range(30_000)), "30,000 mistakes"),
    "names 30,000": (_BASE + "attacks:\n" + "".join(f"- prunx{n}\n" for n in range(30_000)), "and 29,900 more"),
    "suites 30,000": (
        "suites:\n" + "".join(f"- tinz{n}\n" for n in range(30_000)) + "methods: activemark\n",
        "mistakes",
    ),
    "parameters 20,000": (_BASE + "attacks:\n" + "".join(f"- prune:amoun{n}=1\n" for n in range(20_000)), "mistakes"),
    "name long": (f"{_BASE}attacks: {'x' * 100_000}\n", "at most"),
    "chain long": (f"{_BASE}attacks: {'+'.join(['prune40'] * 20_000)}\n", "at most"),
    "chain of links": (f"{_BASE}attacks:\n- [{', '.join(['prune40'] * 20_000)}]\n", ""),
    "cells 16 million": (
        f"suites: tiny\nmethods:\n- activemark: {{steps: {_AXIS}, n_bits: {_AXIS}}}\n",
        "cells; more than",
    ),
    "cells of attacks": (f"{_BASE}attacks:\n- [{_WIDE}, {_WIDE}]\n", "cells; more than"),
    "cells past integers": (f"{_BASE}attacks:\n- [{', '.join([_WIDE] * 12)}]\n", "cells; more than"),
    "cells of one link": (
        f"{_BASE}attacks:\n- finetune: {{epochs: {_AXIS[:1000]}, lr: {_SHARES[1:]}}}\n",
        "cells; more than",
    ),
    "seeds 90,000": (f"{_BASE}attacks: {_WIDE}\nseeds: {list(range(5000))}\n", "cells; more than"),
    "negatives": (f"{_BASE}negatives: 100001\n", "a whole number, 0 to 100000"),
    "values 100,000": ("a:\n" + "- b\n" * 110_000, "holds more than"),
    "aliases": (
        "a0: &a0 [x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)),
        "values, aliases counted",
    ),
    "alias inside": ("a: &a [*a]\n", "stands inside"),
    "alias unknown": ("a: *b\n", "is not YAML"),
    "anchors 20,000": ("a:\n" + "".join(f"- &a{n} x\n" for n in range(20_000)), ""),
    "documents": ("a: 1\n---\nb: 2\n", "is not YAML"),
    "nothing": ("", "missing"),
    "text": ("hello", "should hold"),
    "question marks": ("? " * 300_000, "nested too deeply"),
    "dashes": ("- " * 300_000, "nested too deeply"),
    "braces": ("{" * 29 + "a: b, " * 20_000, ""),
    "comments": ("#\n" * 400_000, "missing"),
    "include itself": ("include: s.yaml\n", "circle"),
    "include outside": ("include: ../../../etc/passwd\n", "outside"),
    "include device": ("include: /dev/zero\n", "outside"),
    "include zero byte": ('include: "a\\0b"\n', "is no file's name"),
    "include surrogate": ('include: "\\ud800"\n', "is no file's name"),
    "include long": (f"include: {'x' * 5000}\n", "is no file's name"),
    "include mapping": ("include: {a: b}\n", "names a file"),
    "include nested": ("include: [[s.yaml]]\n", "names a file"),
    "name path": (f"{_BASE}name: ../../x\n", "name is 1 to 64 letters"),
    "name list": (f"{_BASE}name: [[[a]]]\n", "name is 1 to 64 letters"),
    "model list": (f"{_BASE}model: [tiny/owner]\n", "model is a model reference"),
    "model mapping": (f"{_BASE}model: {{a: b}}\n", "model is a model reference"),
    "model number": (f"{_BASE}model: 3\n", "model is a model reference"),
    "model empty": (f"{_BASE}model: ''\n", "No model is called"),
    "methods mapping": ("suites: tiny\nmethods: {activemark: {n_bits: {a: 1}}}\n", "takes plain values"),
    "axis of lists": ("suites: tiny\nmethods:\n- activemark: {n_bits: [[1]]}\n", "takes plain values"),
    "axis injected": (f"{_BASE}attacks:\n- prune: {{scope: 'a,amount=1'}}\n", "has a space or one of"),
    "axis name": (f"{_BASE}attacks:\n- prune: {{'a=1,b': 1}}\n", ""),
    "entry empty": (f"{_BASE}attacks:\n- {{}}\n", "an entry of attacks is"),
    "entries of lists": (f"{_BASE}attacks:\n- [[prune40]]\n", "an entry of attacks is"),
    "chain empty": (f"{_BASE}attacks:\n- []\n", ""),
    "repeated": (f"{_BASE}attacks: [prune40, none+prune40]\n", "again: it is prune40"),
    "none alone": (f"{_BASE}attacks: [none, none+none]\n", "again: it is none"),
}
YAML_BYTES: Final = {
    "latin 1": b"a: \xe9\n",
    "UTF-16": "a: 1\n".encode("utf-16"),
    "UTF-16 cut": "a: 1\n".encode("utf-16")[:-1],
    "UTF-32": "a: 1\n".encode("utf-32"),
    "zero byte": b"a: \0\n",
    "surrogate": b"a: \xed\xa0\x80\n",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0",
    "large": b"a: b\n" * 300_000,
}
REFERENCES: Final = {
    "no such user": ("file/~nobody-has-this-name/x", "names no file"),
    "user's home": ("file/~/no-such-model", "does not exist"),
    "5,000 letters": (f"file/{'x' * 5000}", "at most 1024 letters"),
    "1,000 letters": (f"file/{'x' * 1000}", ""),
    "300 letters": (f"file/{'x' * 300}", ""),
    "zero byte": ("file/a\0b", "control character"),
    "surrogate": ("file/\ud800", "control character"),
    "escape": ("file/\x1b[2J", "control character"),
    "folder": ("file/.", "is a folder"),
    "root": ("file//", ""),
    "device": ("file//dev/zero", "does not exist"),
    "standard input": ("file//dev/stdin", "does not exist"),
    "pickle": ("file/model.pt", "pickle by its ending"),
    "many dots": ("file/" + "../" * 300, ""),
    "hub 200 letters": (f"hf/{'x' * 200}/y", "names no repository"),
    "hub 97 letters": (f"hf/{'x' * 97}", "names no repository"),
    "hub two dashes": ("hf/a--b/c", "names no repository"),
    "hub dots": ("hf/../x", "names no repository"),
    "hub two dots": ("hf/a..b/c", "names no repository"),
    "hub ends with a dot": ("hf/a/b.", "names no repository"),
    "hub ends with a dash": ("hf/a/b-", "names no repository"),
    "hub git": ("hf/a/b.git", "names no repository"),
    "hub three parts": ("hf/a/b/c", "names no repository"),
    "hub accents": ("hf/é/b", "names no repository"),
    "hub revision": ("hf/a/b@../../x", "names no repository"),
    "hub revision long": (f"hf/a/b@{'x' * 300}", "names no repository"),
    "hub revision empty": ("hf/a/b@", "names no repository"),
    "hub address": ("hf/http://localhost/x", "names no repository"),
    "timm long": (f"timm/{'x' * 900}", "No timm model"),
    "timm hub": ("timm/hf-hub:someone/model", "No timm model"),
    "timm dots": ("timm/..", "No timm model"),
    "open_clip dots": ("open_clip/../../x/y", "No open_clip model"),
    "open_clip tag": ("open_clip/ViT-B-32/../../x", "No tag"),
    "tiny dots": ("tiny/../../x", "No model"),
    "no slash": ("tiny", "No model"),
    "nothing": ("", "No model"),
    "slash": ("/", "No model"),
    "no loader": ("os.system/id", "No model"),
    "password": ("https://user:secret@host/x", "***@host"),
}
ATTACKS: Final = {
    "nothing": "",
    "plus": "+",
    "long": "prune40+" * 5000,
    "letters": "x" * 100_000,
    "long key": f"prune:{'k' * 15_000}=1",
    "long value": f"prune:amount={'9' * 15_000}",
    "large": f"prune:amount={'9' * 400}",
    "infinite": "prune:amount=inf",
    "not a number": "prune:amount=nan",
    "twice": "prune:amount=0.1,amount=0.2",
    "zero byte": "prune\0",
    "surrogate": "prune:amount=\ud800",
    "escape": "prune:amount=\x1b[2J",
    "dunder": "__class__",
    "accents": "prüne40",
    "digits of another script": "prune:amount=٠.٤",
    "equals": "prune:amount==1",
    "empty key": "prune:=1",
    "1,000 parameters": "prune:" + ",".join(f"k{n}=1" for n in range(1000)),
    "none": "none+none",
}
METHODS: Final = {
    "large": f"activemark:n_bits={'9' * 4000}",
    "very large": f"activemark:n_bits={'9' * 5000}",
    "less": "activemark:n_bits=-1",
    "half": "activemark:n_bits=1.5",
    "switch": "activemark:n_bits=true",
    "chain": "activemark+ipguard",
    "unknown": "x" * 19_000,
}
SUITES: Final = {"dots": "../x", "path": "tiny:path=/etc/passwd", "long": "t" * 19_999, "zero byte": "tiny\0"}
DEFINITIONS: Final = {
    "nested": "(lambda f: f(f, 300))(lambda f, n: {'a': f(f, n - 1)} if n else {})",
    "large number": "{'suites': 'tiny', 'methods': 'activemark', 'seeds': 10 ** 5000}",
    "object": "{'suites': object(), 'methods': print}",
    "large key": "{10 ** 4000: 1}",
    "bytes": "{'suites': b'tiny', 'methods': b'activemark'}",
}
EVIDENCE: Final = {
    "not a number": "(np.array([[np.nan]]), np.array([[1.0]]))",
    "fraction": "(np.array([[0]]), np.array([[0.5]]))",
    "whole fractions": "(np.array([[0.0]]), np.array([[1.0]]))",
    "less": "(np.array([[0]]), np.array([[-1]]))",
    "too large": "(np.array([[0]]), np.array([[2]]))",
    "text": "(np.array([['a']]), np.array([['a']]))",
    "objects": "(np.array([[object()]]), np.array([[1]]))",
    "object numbers": "(np.array([[1]], dtype=object), np.array([[1]]))",
    "complex": "(np.array([[1j]]), np.array([[1]]))",
    "dates": "(np.array([['2001-01-01']], dtype='datetime64[D]'), np.array([[1]]))",
    "records": "(np.zeros((1, 1), dtype=[('a', int)]), np.array([[1]]))",
    "lists": "([[1]], [[1]])",
    "nothing": "(None, None)",
    "one axis": "(np.array([1]), np.array([1]))",
    "empty": "(np.zeros((0, 1), int), np.zeros((0, 1), int))",
    "shapes": "(np.zeros((2, 1), int), np.zeros((1, 2), int))",
    "alphabet zero": "(np.array([[0]]), np.array([[0]]), 0)",
    "alphabet switch": "(np.array([[0]]), np.array([[0]]), True)",
    "alphabet fraction": "(np.array([[0]]), np.array([[0]]), 2.5)",
    "alphabet large": "(np.array([[0]]), np.array([[0]]), 10 ** 5000)",
    "alphabet text": "(np.array([[0]]), np.array([[0]]), '2')",
    "alphabet passed": "(np.array([[5]], dtype=np.uint64), np.array([[0]]), 5)",
}
ENVIRONMENTS: Final = {
    "no such plugin": {"AMB_DISABLE_PLUGINS": "x\x1b[2J,,,"},
    "long": {"AMB_DISABLE_PLUGINS": "x," * 50_000},
    "data of nobody": {"AMB_DATA": "~nobody-has-this-name/x"},
    "data long": {"AMB_DATA": "/x" * 50_000},
    "data device": {"AMB_DATA": "/dev/zero"},
    "home": {"XDG_DATA_HOME": "~nobody-has-this-name", "HOME": ""},
    "colour": {"NO_COLOR": "\x1b", "FORCE_COLOR": "x", "COLUMNS": "-1"},
    "columns": {"COLUMNS": "9" * 5000, "LINES": "x"},
    "tracking": {"MLFLOW_TRACKING_URI": "http://user:secret@localhost:1/\x1b[2J"},
    "offline": {"AMB_OFFLINE": "\x1b[2J"},
}
PLUGINS: Final = {
    "raises": "import amb\n@amb.hookimpl\ndef amb_register_attacks(self):\n    raise RuntimeError('\\x1b[2J')",
    "returns a number": "import amb\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return 3",
    "returns nothing": "import amb\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return None",
    "registers a number": "import amb\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [3]",
    "registers a function": "import amb\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [print]",
    "no name": "import amb\nclass A(amb.Attack): pass\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [self.A]",
    "name a number": "import amb\nclass A(amb.Attack):\n    name = 3\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [self.A]",
    "name taken": "import amb\nclass A(amb.Attack):\n    name = 'prune'\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [self.A]",
    "twice": "import amb\nclass A(amb.Attack):\n    name = 'a'\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [self.A, self.A]",
    "name steers": "import amb\nclass A(amb.Attack):\n    name = '\\x1b[2J'\n@amb.hookimpl\ndef amb_register_attacks(self):\n    return [self.A, self.A]",
    "argument unknown": "import amb\n@amb.hookimpl\ndef amb_register_attacks(self, what):\n    return []",
}


def safetensors_inputs() -> Iterator[tuple[str, bytes]]:
    """Files of weights that are none."""

    def pack(header: Any, body: bytes = b"\0" * 16) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    def one(**facts: Any) -> bytes:
        return pack({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **facts}})

    yield from {
        "empty": b"",
        "7 bytes": b"\0" * 7,
        "zero length": struct.pack("<Q", 0),
        "length past the end": struct.pack("<Q", 2**63) + b"{}",
        "largest length": b"\xff" * 8,
        "not JSON": pack(b"hello"),
        "list": pack([]),
        "number": pack(3),
        "null": pack(None),
        "deep list": pack(b"[" * 100_000),
        "deep mapping": pack(b'{"a":' * 100_000),
        "long number": pack(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 16]}}'),
        "not UTF-8": pack(b"\xff\xfe"),
        "no tensors": pack({}),
        "tensor null": pack({"a": None}),
        "tensor list": pack({"a": []}),
        "shape text": one(shape="4"),
        "shape switch": one(shape=[True]),
        "shape less": one(shape=[-4]),
        "shape large": one(shape=[10**12]),
        "shape product": one(shape=[2**32, 2**32]),
        "shape null": one(shape=None),
        "shape long": one(shape=[1] * 100_000),
        "shape nothing": one(shape=[0, 2**62]),
        "dtype unknown": one(dtype="X"),
        "dtype list": one(dtype=[]),
        "offsets turned": one(data_offsets=[16, 0]),
        "offsets outside": one(data_offsets=[0, 10**9]),
        "offsets less": one(data_offsets=[-16, 0]),
        "offsets one": one(data_offsets=[0]),
        "offsets text": one(data_offsets="01"),
        "metadata list": pack({"__metadata__": []}),
        "metadata deep": pack({"__metadata__": {"a": {"b": 1}}}),
        "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "torch": b"PK\x03\x04" + b"\0" * 60,
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "name steers": pack({"\x1b[2J": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        "name zero byte": pack({"\0": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}),
        "overlap": pack({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"}),
    }.items()


def all_inputs() -> list[Input]:
    """Every input of the table."""
    found = [Input("yaml", name, text.encode("utf-8", "surrogatepass"), says) for name, (text, says) in YAML.items()]
    found += [Input("yaml", name, data) for name, data in YAML_BYTES.items()]
    found += [
        Input("sweep_path", kind, kind.encode(), "cannot be read")
        for kind in ("fifo", "folder", "circle", "/dev/zero", "/dev/full")
    ]
    found += [Input("definition", name, text.encode()) for name, text in DEFINITIONS.items()]
    found += [
        Input("reference", name, ref.encode("utf-8", "surrogatepass"), says) for name, (ref, says) in REFERENCES.items()
    ]
    places = [
        f"{which} {kind}"
        for which in ("card", "weights")
        for kind in ("fifo", "folder", "circle", "/dev/zero", "/etc/passwd")
    ]
    found += [Input("model_place", place, place.encode(), " ") for place in places]
    found += [Input("changes", name, data, " ") for name, data in list_cards()]
    found += [Input("card", name, data, "is not a model card") for name, data in _CARDS.items()]
    found += [Input("safetensors", name, data, " ") for name, data in safetensors_inputs()]
    found += [Input("long_header", "1.6 million names", b"1600000", "is not a safetensors file")]
    found += [Input("sparse", size, size.encode(), " ") for size in ("100000000000", "8")]
    found += [Input("attack", name, text.encode("utf-8", "surrogatepass")) for name, text in ATTACKS.items()]
    found += [Input("method", name, text.encode()) for name, text in METHODS.items()]
    found += [Input("suite", name, text.encode(), " ") for name, text in SUITES.items()]
    found += [Input("evidence", name, text.encode()) for name, text in EVIDENCE.items()]
    found += [Input("bundle", name, data, says) for name, data, says in bundle_inputs()]
    found += [Input("large_bundle", name, name.encode(), "takes") for name in LARGE]
    found += [Input("bundle_place", kind, kind.encode(), " ") for kind in ("fifo", "folder", "circle", "/dev/zero")]
    found += [Input("image", name, data) for name, data in image_inputs()]
    found += [Input("image_place", kind, kind.encode(), " ") for kind in ("fifo", "circle", "/dev/zero")]
    found += [Input("environment", name, json.dumps(each).encode()) for name, each in ENVIRONMENTS.items()]
    return found + [Input("plugin", name, text.encode()) for name, text in PLUGINS.items()]


_CARDS: Final = {
    "empty": b"",
    "brace": b"{",
    "list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "deep mapping": b'{"architecture":' * 5000,
    "not UTF-8": b"\xff",
    "large": b" " * (2**22 + 1),
    "long number": b'{"format": ' + b"9" * 100_000 + b"}",
    "surrogate": b'{"format": "\\ud800"}',
    "steers": b'{"\\u001b[2J": 1}',
}
