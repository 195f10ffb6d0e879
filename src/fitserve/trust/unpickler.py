"""Load joblib files and pickles as the trust policy says.

Under ``allowlist`` a file is read twice: first by :class:`~fitserve.trust.scan.Scan`, which makes
nothing and finds every name that the file uses and how, and only when all of that is allowed by
:class:`Load`, which checks each step again. A refusal has therefore run nothing of the file, and
names all that is missing.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import types
import warnings
from typing import TYPE_CHECKING, Any, cast

from fitserve.errors import ArtifactError, UntrustedArtifactError
from fitserve.trust import arrays, reconstruct
from fitserve.trust.allowlist import current_name, uses_of
from fitserve.trust.decompress import decompress
from fitserve.trust.explain import explain, missing_names
from fitserve.trust.judge import HOLDS_CODE, require_pinned
from fitserve.trust.machine import Machine
from fitserve.trust.scan import Scan
from fitserve.trust.stream import ARRAY_HEADER, ArrayHeader, Refused, Stream, Token
from fitserve.trust.structure import check_structure

if TYPE_CHECKING:
    import numpy as np

    from fitserve.trust.allowlist import Use
    from fitserve.trust.policy import TrustPolicy


class Load(Machine):
    """Executes a stream, making only what the policy allows, in the ways it allows."""

    def __init__(self, stream: Stream, policy: TrustPolicy, *, is_nested: bool = False) -> None:
        super().__init__(stream, is_nested=is_nested)
        self.policy = policy
        self._values: dict[int, Token] = {}  # by identity of the thing, which the token keeps alive

    def resolve(self, module: str, name: str) -> Any:
        """Import an allowed global; a token for what may not be a value."""
        full = f"{module}.{name}"
        uses = frozenset[Any]() if "." in name else uses_of(full, self.policy)
        if not uses:
            self.refuse(f"is refused: it uses {full}, which is not on the allow-list")
        if full == ARRAY_HEADER:
            return Token(full, ArrayHeader, uses)
        full = current_name(full)
        token = Token(full, reconstruct.GUARDED.get(full) or import_exactly(full), uses)
        if "value" not in uses or full in reconstruct.GUARDED:
            return token
        self._values[id(token.thing)] = token
        return token.thing

    def call(self, func: Any, args: Any) -> Any:
        """Call a listed function with what the file says."""
        token = self._granted(func, "call")
        if type(args) is not tuple:
            self.refuse(f"is damaged: it calls {token.name} without arguments")
        return token.thing(*(self._argument(arg) for arg in args))

    def new(self, cls: Any, args: Any, kwargs: Any) -> Any:
        """Make an instance of a listed class without calling its constructor."""
        token = self._granted(cls, "new")
        made = token.thing
        if not isinstance(made, type) or type(args) is not tuple or type(kwargs) is not dict:
            self.refuse(f"is refused: it makes an instance of {token.name} in a way that is not read here")
        return made.__new__(made, *(self._argument(arg) for arg in args), **kwargs)

    def build(self, inst: Any, state: Any) -> None:
        """Give an instance of a listed class its attributes, by the class's own ``__setstate__`` only."""
        cls = type(inst)
        name = current_name(f"{cls.__module__}.{cls.__qualname__}")
        if not uses_of(name, self.policy) or isinstance(inst, type | types.FunctionType | types.ModuleType):
            self.refuse(f"is refused: it gives a state to an object of type {name}, which is not on the allow-list")
        _check_state(state, name)
        if guarded := reconstruct.STATES.get(name):
            guarded(inst, state)
        # Of the class, not of the instance: an earlier BUILD may have planted one there.
        elif hasattr(cls, "__setstate__"):
            cls.__setstate__(inst, state)
        else:
            _set_attributes(inst, state, name)

    def nested(self) -> Any:
        """Load the pickle that starts here, by the same rules."""
        import numpy as np

        array = Load(self.stream, self.policy, is_nested=True).load()
        if type(array) not in (np.ndarray, np.matrix):
            self.refuse("is damaged: an array of objects is none")
        return array

    def make_array(self, dtype: np.dtype[Any], shape: tuple[int, ...], order: str) -> Any:
        """Copy the bytes into an array of this machine's byte order."""
        import numpy as np

        data = self.stream.read(arrays.size_of(dtype, shape))
        flat = np.frombuffer(data, dtype=dtype).copy() if data else np.empty(0, dtype=dtype)
        array = flat.reshape(shape[::-1]).transpose() if order == "F" else flat.reshape(shape)
        return array.astype(dtype.newbyteorder("="), copy=False)

    def type_name(self, thing: Any) -> str:
        """Return the name of an allowed global."""
        token = thing if isinstance(thing, Token) else self._values.get(id(thing))
        return token.name if token else ""

    def _granted(self, thing: Any, use: Use) -> Token:
        token = thing if isinstance(thing, Token) else self._values.get(id(thing))
        if token is None:
            self.refuse(f"is refused: it calls an object of type {type(thing).__name__}, which is no global")
        if use not in token.uses:
            self.refuse(f"is refused: it uses {token.name} in a way that is not on the allow-list ({use})")
        return token

    def _argument(self, arg: Any) -> Any:
        """Return the class for which a token stands, as argument of a reviewed function."""
        if isinstance(arg, Token):
            return self._granted(arg, "type" if "type" in arg.uses else "new").thing
        return arg


def _check_state(state: Any, name: str) -> None:
    """Refuse attributes that Python itself would look up and call."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)  # noqa: PLR2004 - attributes and slots
    for part in parts:
        for key in part if isinstance(part, dict) else ():
            if isinstance(key, str) and key.startswith("__") and key.endswith("__"):
                raise Refused(f"is refused: it plants {key[:64]!r} into an object of type {name}")


def _set_attributes(inst: Any, state: Any, name: str) -> None:
    """Do what BUILD does for a class without ``__setstate__``; slots are set only where the class has them."""
    is_pair = type(state) is tuple and len(state) == 2  # noqa: PLR2004
    attributes, slots = state if is_pair else (state, None)
    if attributes:
        if type(attributes) is not dict or not all(type(key) is str for key in attributes):
            raise ArtifactError(f"is damaged: an object of type {name} has no attributes")
        vars(inst).update(attributes)
    for key, value in (slots or {}).items():
        if not isinstance(getattr(type(inst), key, None), types.MemberDescriptorType):
            raise Refused(f"is refused: it sets {key[:64]!r} of an object of type {name}")
        setattr(inst, key, value)


def import_exactly(full: str) -> Any:
    """Import ``package.module.Name``, which must be what it is called: no re-export, no module.

    Raises:
        ArtifactError: there is no such module or name.
        Refused: the thing is another one's.
    """
    module, _, name = full.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that will go: their time has not come
        try:
            thing = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as exc:
            raise ArtifactError(explain(exc, name=full)) from exc
    real = f"{getattr(thing, '__module__', None) or module}.{getattr(thing, '__qualname__', name)}"
    if isinstance(thing, types.ModuleType) or current_name(real) not in (full, f"numpy.{name}", f"pandas.{name}"):
        raise Refused(f"is refused: {full} is really {real}, which is not on the allow-list")
    return thing


def load_pickle(data: bytes | memoryview, policy: TrustPolicy, *, digest: str, is_signed: bool = False) -> Any:
    """Load a joblib file or a pickle from its bytes, compressed or not, which may lie in a map of a file.

    ``digest`` is the sha256 of the file, in hex: the policy may vouch for it. ``is_signed`` says that
    the policy's key has signed these bytes. What is vouched for is loaded as :func:`joblib.load` does,
    under the levels that take it; anything else by the allow-list. In both cases the structure of
    what was loaded has been checked (:func:`~fitserve.trust.structure.check_structure`).

    Raises:
        UntrustedArtifactError: the policy does not let it be loaded; nothing of it has run.
        ArtifactError: it is damaged, truncated, or needs what is not here.
    """
    require_pinned(digest, policy)
    if policy.level == "data":
        raise UntrustedArtifactError(HOLDS_CODE.format("a pickle"), digest=digest)
    plain: bytes | memoryview = decompress(cast("bytes", data))  # a view that is not compressed comes back as it is
    is_vouched = policy.level == "any" or (policy.level == "pinned" and (is_signed or digest in policy.pins))
    try:
        result = _load_plainly(plain, digest) if is_vouched else _load_by_list(plain, policy, digest)
    except ArtifactError:
        raise
    except (Exception, SystemExit) as exc:
        raise ArtifactError(explain(exc)) from exc
    check_structure(result)
    return result


def _load_plainly(data: bytes | memoryview, digest: str) -> Any:
    import joblib

    if isinstance(data, memoryview):  # of a file, which may have changed since it was hashed
        data = bytes(data)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ArtifactError("changed while it was loaded")
    return joblib.load(io.BytesIO(data))


def _load_by_list(data: bytes | memoryview, policy: TrustPolicy, digest: str) -> Any:
    if data[:1] != b"\x80" or bytes(data[1:2]) < b"\x02":
        raise ArtifactError(
            "is no joblib or pickle file of protocol 2 or later: if it is one of protocol 0 or 1, "
            "load it where you trust it and save it again with joblib"
        )
    judge(data, policy, digest)
    stream = Stream(data)
    try:
        result = Load(stream, policy).load()
    except Refused as exc:
        raise UntrustedArtifactError(str(exc), digest=digest) from exc
    if isinstance(result, Token):
        raise ArtifactError(f"holds the class or function {result.name}, not a fitted estimator")
    return result


def judge(data: bytes | memoryview, policy: TrustPolicy, digest: str) -> None:
    """Find all that a pickle uses, making nothing, and compare it with the policy.

    Raises:
        UntrustedArtifactError: names are missing, or the file does what no model file needs.
        ArtifactError: it is damaged, and names nothing that is missing.
    """
    stream = Stream(data)
    scan = Scan(stream)
    failure: Exception | None = None
    try:
        scan.run()
    except Exception as exc:  # noqa: BLE001 - told below, after what is missing
        failure = exc
    missing = [
        name for name, uses in scan.uses.items() if not uses <= _permitted(name, policy) or not uses_of(name, policy)
    ]
    if missing:
        raise UntrustedArtifactError(missing_names(missing, policy), digest=digest, missing=missing) from failure
    if isinstance(failure, Refused):
        raise UntrustedArtifactError(str(failure), digest=digest) from failure
    if scan.faults:
        raise UntrustedArtifactError(f"is refused: it {scan.faults[0]}, which no model file needs", digest=digest)
    if isinstance(failure, ArtifactError):
        raise failure
    if failure is not None:
        raise ArtifactError(explain(failure)) from failure
    if stream.remaining:
        raise ArtifactError(
            f"is refused: {stream.remaining} bytes follow the end of its pickle; wanted one model a file, "
            "came several pickles, or other data: save the model alone"
        )


def _permitted(name: str, policy: TrustPolicy) -> frozenset[Use]:
    """Return the uses of a name; a class that may be made may also be named to a reviewed function."""
    uses = uses_of(name, policy)
    return uses | {"type"} if uses & {"new", "value"} else uses
