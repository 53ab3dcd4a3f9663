"""amb: the benchmark harness for ownership verification of vision models.

The verbs are the front door: `amb.run`, `amb.sweep`, `amb.load_results` and their like do what the command line does.
The other names are what plugins build on. All are resolved at first use, so `import amb` stays cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
"""Part of the address of every stored result."""

if TYPE_CHECKING:
    from amb.api.component import Component as Component
    from amb.api.context import Context as Context
    from amb.api.data import Batch as Batch
    from amb.api.data import Split as Split
    from amb.api.data import endless as endless
    from amb.api.data import in_order as in_order
    from amb.api.data import read_ahead as read_ahead
    from amb.api.data import shuffled as shuffled
    from amb.api.edits import edited as edited
    from amb.api.executors import Assignment as Assignment
    from amb.api.executors import Executor as Executor
    from amb.api.executors import Pool as Pool
    from amb.api.executors import Report as Report
    from amb.api.forging import grind as grind
    from amb.api.forging import require_forgery as require_forgery
    from amb.api.forging import require_key as require_key
    from amb.api.interfaces import Attack as Attack
    from amb.api.interfaces import Edit as Edit
    from amb.api.interfaces import Forgery as Forgery
    from amb.api.interfaces import Method as Method
    from amb.api.interfaces import ModelLoader as ModelLoader
    from amb.api.interfaces import Reporter as Reporter
    from amb.api.interfaces import Suite as Suite
    from amb.api.labels import explain_other_classes as explain_other_classes
    from amb.api.labels import forge_labels as forge_labels
    from amb.api.labels import label_agreement as label_agreement
    from amb.api.needs import Needs as Needs
    from amb.api.plan import Plan as Plan
    from amb.api.plan import Suspect as Suspect
    from amb.api.records import Cell as Cell
    from amb.api.records import CellResult as CellResult
    from amb.api.records import Embedding as Embedding
    from amb.api.records import EmbeddingFacts as EmbeddingFacts
    from amb.api.records import Evidence as Evidence
    from amb.api.records import Key as Key
    from amb.api.records import KeyAudit as KeyAudit
    from amb.api.records import StoredFile as StoredFile
    from amb.api.records import SuspectFacts as SuspectFacts
    from amb.api.records import Verdict as Verdict
    from amb.api.run import Run as Run
    from amb.api.secret import Streams as Streams
    from amb.api.secret import audit_secret as audit_secret
    from amb.api.secret import draw_secret as draw_secret
    from amb.api.secret import open_secret as open_secret
    from amb.api.secret import refuse_key as refuse_key
    from amb.api.secret import require_same as require_same
    from amb.api.secret import require_sound as require_sound
    from amb.api.types import Access as Access
    from amb.api.types import CheckpointFiles as CheckpointFiles
    from amb.api.types import ClaimKind as ClaimKind
    from amb.api.types import Fetch as Fetch
    from amb.api.types import Independent as Independent
    from amb.api.types import Knows as Knows
    from amb.api.types import ModelFacts as ModelFacts
    from amb.api.types import Null as Null
    from amb.api.types import Protected as Protected
    from amb.api.types import Role as Role
    from amb.api.types import Sibling as Sibling
    from amb.api.types import Thief as Thief
    from amb.api.types import Work as Work
    from amb.api.vision import Affine as Affine
    from amb.api.vision import Backbone as Backbone
    from amb.api.vision import BlockParts as BlockParts
    from amb.api.vision import Matrix as Matrix
    from amb.api.vision import SuspectView as SuspectView
    from amb.api.vision import VisionModel as VisionModel
    from amb.errors import AccessError as AccessError
    from amb.errors import AmbError as AmbError
    from amb.errors import BadParamsError as BadParamsError
    from amb.errors import CheckpointError as CheckpointError
    from amb.errors import MissingDependencyError as MissingDependencyError
    from amb.errors import MissingError as MissingError
    from amb.errors import NoHeadError as NoHeadError
    from amb.errors import OutOfMemoryError as OutOfMemoryError
    from amb.errors import PluginError as PluginError
    from amb.errors import SpecError as SpecError
    from amb.errors import StoreError as StoreError
    from amb.errors import UnknownNameError as UnknownNameError
    from amb.errors import UsageError as UsageError
    from amb.errors import near_names as near_names
    from amb.errors import unknown_name as unknown_name
    from amb.evaluation import rates, utility
    from amb.evaluation.activations import activation_profile as activation_profile
    from amb.evaluation.activations import choose_block as choose_block
    from amb.evaluation.rates import detection_rate as detection_rate
    from amb.models.checkpoint import fill_by_library as fill_by_library
    from amb.models.checkpoint import limit_to_file as limit_to_file
    from amb.models.checkpoint import load_checkpoint as load_checkpoint
    from amb.models.checkpoint import read_card as read_card
    from amb.models.checkpoint import read_weights as read_weights
    from amb.models.checkpoint import refuse_misfit as refuse_misfit
    from amb.models.checkpoint import refuse_unsound as refuse_unsound
    from amb.models.checkpoint import save_checkpoint as save_checkpoint
    from amb.models.heads import HEADS as HEADS
    from amb.models.heads import ClassificationHead as ClassificationHead
    from amb.models.heads import SegmentationHead as SegmentationHead
    from amb.models.notes import say_once as say_once
    from amb.models.shards import has_weights as has_weights
    from amb.models.shards import list_files as list_files
    from amb.models.shards import read_shapes as read_shapes
    from amb.plugin.specs import hookimpl as hookimpl
    from amb.python.catalog import build_model as build_model
    from amb.python.catalog import get_attack as get_attack
    from amb.python.catalog import get_method as get_method
    from amb.python.catalog import get_suite as get_suite
    from amb.python.catalog import list_components as list  # noqa: A004 (amb.list, as `amb list`)
    from amb.python.catalog import load_model as load_model
    from amb.python.ownership import judge as judge
    from amb.python.ownership import protect as protect
    from amb.python.ownership import verify as verify
    from amb.python.results import Results as Results
    from amb.python.results import compare as compare
    from amb.python.results import load_results as load_results
    from amb.python.runs import run as run
    from amb.python.sweeps import sweep as sweep
    from amb.runtime.batch_size import BatchSizeLimiter as BatchSizeLimiter
    from amb.runtime.compute import Compute as Compute
    from amb.runtime.paths import DATA as DATA
    from amb.runtime.paths import data_root as data_root
    from amb.runtime.paths import go_offline as go_offline
    from amb.runtime.paths import is_offline as is_offline
    from amb.runtime.paths import may_download as may_download
    from amb.runtime.plain_json import read_json_object as read_json_object
    from amb.runtime.progress import Progress as Progress
    from amb.runtime.progress import make_progress as make_progress
    from amb.runtime.quiet import hush_torchao as hush_torchao
    from amb.runtime.safetensors_header import PICKLE as PICKLE
    from amb.sweeps.definition import Sweep as Sweep
    from amb.training.accumulate import GradientAccumulator as GradientAccumulator
    from amb.training.config import LrSchedule as LrSchedule
    from amb.training.config import Task as Task
    from amb.training.config import TrainingConfig as TrainingConfig
    from amb.training.loop import fit as fit
    from amb.training.loop import new_head as new_head
    from amb.training.loop import train_classifier as train_classifier
    from amb.training.loop import tune as tune
    from amb.training.signs import measure_drift as measure_drift
    from amb.training.signs import measure_likelihood as measure_likelihood
    from amb.training.signs import read_signs as read_signs
    from amb.training.signs import train_held as train_held

    count_errors, measure_utility = rates.errors, utility.utility

_HOME = {
    "amb.api.component": {"Component": "Component"},
    "amb.api.context": {"Context": "Context"},
    "amb.api.data": {
        "Batch": "Batch",
        "Split": "Split",
        "endless": "endless",
        "in_order": "in_order",
        "read_ahead": "read_ahead",
        "shuffled": "shuffled",
    },
    "amb.api.edits": {"edited": "edited"},
    "amb.api.executors": {"Assignment": "Assignment", "Executor": "Executor", "Pool": "Pool", "Report": "Report"},
    "amb.api.forging": {
        "grind": "grind",
        "require_forgery": "require_forgery",
        "require_key": "require_key",
    },
    "amb.api.interfaces": {
        "Attack": "Attack",
        "Edit": "Edit",
        "Forgery": "Forgery",
        "Method": "Method",
        "ModelLoader": "ModelLoader",
        "Reporter": "Reporter",
        "Suite": "Suite",
    },
    "amb.api.labels": {
        "explain_other_classes": "explain_other_classes",
        "forge_labels": "forge_labels",
        "label_agreement": "label_agreement",
    },
    "amb.api.needs": {"Needs": "Needs"},
    "amb.api.plan": {"Plan": "Plan", "Suspect": "Suspect"},
    "amb.api.records": {
        "Cell": "Cell",
        "CellResult": "CellResult",
        "Embedding": "Embedding",
        "EmbeddingFacts": "EmbeddingFacts",
        "Evidence": "Evidence",
        "Key": "Key",
        "KeyAudit": "KeyAudit",
        "StoredFile": "StoredFile",
        "SuspectFacts": "SuspectFacts",
        "Verdict": "Verdict",
    },
    "amb.api.run": {"Run": "Run"},
    "amb.api.secret": {
        "Streams": "Streams",
        "audit_secret": "audit_secret",
        "draw_secret": "draw_secret",
        "open_secret": "open_secret",
        "refuse_key": "refuse_key",
        "require_same": "require_same",
        "require_sound": "require_sound",
    },
    "amb.api.types": {
        "Access": "Access",
        "CheckpointFiles": "CheckpointFiles",
        "ClaimKind": "ClaimKind",
        "Fetch": "Fetch",
        "Independent": "Independent",
        "Knows": "Knows",
        "ModelFacts": "ModelFacts",
        "Null": "Null",
        "Protected": "Protected",
        "Role": "Role",
        "Sibling": "Sibling",
        "Thief": "Thief",
        "Work": "Work",
    },
    "amb.api.vision": {
        "Affine": "Affine",
        "Backbone": "Backbone",
        "BlockParts": "BlockParts",
        "Matrix": "Matrix",
        "SuspectView": "SuspectView",
        "VisionModel": "VisionModel",
    },
    "amb.errors": {
        "AccessError": "AccessError",
        "AmbError": "AmbError",
        "BadParamsError": "BadParamsError",
        "CheckpointError": "CheckpointError",
        "MissingDependencyError": "MissingDependencyError",
        "MissingError": "MissingError",
        "NoHeadError": "NoHeadError",
        "OutOfMemoryError": "OutOfMemoryError",
        "PluginError": "PluginError",
        "SpecError": "SpecError",
        "StoreError": "StoreError",
        "UnknownNameError": "UnknownNameError",
        "UsageError": "UsageError",
        "near_names": "near_names",
        "unknown_name": "unknown_name",
    },
    "amb.evaluation.activations": {"activation_profile": "activation_profile", "choose_block": "choose_block"},
    "amb.evaluation.rates": {"detection_rate": "detection_rate", "count_errors": "errors"},
    "amb.evaluation.utility": {"measure_utility": "utility"},
    "amb.models.checkpoint": {
        "fill_by_library": "fill_by_library",
        "limit_to_file": "limit_to_file",
        "load_checkpoint": "load_checkpoint",
        "read_card": "read_card",
        "read_weights": "read_weights",
        "refuse_misfit": "refuse_misfit",
        "refuse_unsound": "refuse_unsound",
        "save_checkpoint": "save_checkpoint",
    },
    "amb.models.heads": {
        "HEADS": "HEADS",
        "ClassificationHead": "ClassificationHead",
        "SegmentationHead": "SegmentationHead",
    },
    "amb.models.notes": {"say_once": "say_once"},
    "amb.models.shards": {"has_weights": "has_weights", "list_files": "list_files", "read_shapes": "read_shapes"},
    "amb.plugin.specs": {"hookimpl": "hookimpl"},
    "amb.python.catalog": {
        "build_model": "build_model",
        "get_attack": "get_attack",
        "get_method": "get_method",
        "get_suite": "get_suite",
        "list": "list_components",
        "load_model": "load_model",
    },
    "amb.python.ownership": {"judge": "judge", "protect": "protect", "verify": "verify"},
    "amb.python.results": {"Results": "Results", "compare": "compare", "load_results": "load_results"},
    "amb.python.runs": {"run": "run"},
    "amb.python.sweeps": {"sweep": "sweep"},
    "amb.runtime.batch_size": {"BatchSizeLimiter": "BatchSizeLimiter"},
    "amb.runtime.compute": {"Compute": "Compute"},
    "amb.runtime.paths": {
        "DATA": "DATA",
        "data_root": "data_root",
        "go_offline": "go_offline",
        "is_offline": "is_offline",
        "may_download": "may_download",
    },
    "amb.runtime.plain_json": {"read_json_object": "read_json_object"},
    "amb.runtime.progress": {"Progress": "Progress", "make_progress": "make_progress"},
    "amb.runtime.quiet": {"hush_torchao": "hush_torchao"},
    "amb.runtime.safetensors_header": {"PICKLE": "PICKLE"},
    "amb.sweeps.definition": {"Sweep": "Sweep"},
    "amb.training.accumulate": {"GradientAccumulator": "GradientAccumulator"},
    "amb.training.config": {"LrSchedule": "LrSchedule", "Task": "Task", "TrainingConfig": "TrainingConfig"},
    "amb.training.loop": {"fit": "fit", "new_head": "new_head", "train_classifier": "train_classifier", "tune": "tune"},
    "amb.training.signs": {
        "measure_drift": "measure_drift",
        "measure_likelihood": "measure_likelihood",
        "read_signs": "read_signs",
        "train_held": "train_held",
    },
}
_PLACE_OF = {name: (module, real) for module, names in _HOME.items() for name, real in names.items()}

__all__ = [  # noqa: PLE0604 (test_public_names keeps it true)
    "__version__",
    *sorted(_PLACE_OF),
]


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module 'amb' has no attribute '{name}'")
    module, real = _PLACE_OF[name]
    value = getattr(import_module(module), real)
    globals()[name] = value
    return value


def __dir__() -> Sequence[str]:
    return __all__
