"""IPGuard: a fingerprint of classifiers by points near the decision boundary."""

from __future__ import annotations

import amb
from amb_ipguard.method import IPGuard


@amb.hookimpl
def amb_register_methods() -> list[type[amb.Method]]:
    return [IPGuard]
