"""The typed face of the Rust module. Its classes keep the protocols of `kernel/contract.py`."""

from collections.abc import Collection, Sequence

from syncd.kernel.contract import Rules, RuleSource

ABI: int

def ignore_sigio() -> None: ...
def trim() -> None: ...
def compile_rules(
    first: Sequence[RuleSource], nested: Sequence[bytes], last: Sequence[RuleSource], overlays: Collection[bytes]
) -> Rules: ...

class Kernel:
    """Keeps `kernel.contract.Kernel`; `kernel/choose.py` hands it out as that."""

    name: str
