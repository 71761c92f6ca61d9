"""The methods: who is compared, and each operation ready to be called.

A method is prepared once for a case, which compiles it, and is then a function of the
number of an input that returns when the result is there.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import jaxpinv
from tests.benchmarks.cases import GRADIENT, HVP, OPERATIONS, VALUE, Case

REFERENCE = "jaxpinv.pinv"
JNP = "jnp.linalg.pinv"
TORCH = "torch.linalg.pinv"
#: Not the same function: they show how far a pseudo-inverse is from simpler ones.
SCALE = ("jnp.linalg.inv", "jnp.linalg.qr", "jnp.linalg.svd", "product, 2mn^2 flops")


class Prepared(NamedTuple):
    """A method on the inputs of one case, and the seconds that its compilation took."""

    call: Callable[[int], object]
    compile_seconds: float


class Peer(Protocol):
    """One method."""

    name: str

    def supports(self, case: Case) -> bool:
        """Whether the method has this operation for these matrices."""
        ...

    def prepare(
        self, case: Case, inputs: Sequence[NDArray], directions: tuple[NDArray, NDArray]
    ) -> Prepared:
        """Compiles, and puts the inputs where the method wants them."""
        ...


class JaxPeer:
    """A function of JAX, compiled ahead of time for the shape."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        supported: Callable[[Case], bool] = lambda case: True,
    ):
        """`function` takes the matrices, `rtol` and `hermitian`."""
        self.name, self.function, self.supported = name, function, supported

    def supports(self, case: Case) -> bool:
        """As the protocol says."""
        return self.supported(case)

    def prepare(
        self, case: Case, inputs: Sequence[NDArray], directions: tuple[NDArray, NDArray]
    ) -> Prepared:
        """As the protocol says."""
        cotangent, tangent, *arrays = (jnp.asarray(x) for x in (*directions, *inputs))
        operation = self.operation(case)
        start = time.perf_counter()
        compiled = jax.jit(operation).lower(arrays[0], cotangent, tangent).compile()
        seconds = time.perf_counter() - start
        jax.block_until_ready(arrays)

        def call(index: int) -> object:
            a = arrays[index % len(arrays)]
            return jax.block_until_ready(compiled(a, cotangent, tangent))

        return Prepared(call, seconds)

    def pinv(self, case: Case, rtol: float | None = None) -> Callable[[jax.Array], Any]:
        """The function of the matrices alone."""
        rtol = case.rtol if rtol is None else rtol
        return lambda a: self.function(a, rtol, case.hermitian)

    def operation(self, case: Case) -> Callable[..., Any]:
        """Function of the input, a cotangent and a tangent."""
        pinv = self.pinv(case)

        def loss(a, cotangent):
            return jnp.sum(jnp.real(jnp.conj(cotangent) * pinv(a)))

        def hvp(a, cotangent, tangent):
            return jax.jvp(lambda a: jax.grad(loss)(a, cotangent), (a,), (tangent,))[1]

        return {
            VALUE: lambda a, cotangent, tangent: pinv(a),
            GRADIENT: lambda a, cotangent, tangent: jax.grad(loss)(a, cotangent),
            HVP: hvp,
        }[case.operation]


class HostPeer:
    """A function of NumPy or SciPy, which has no derivative."""

    def __init__(self, name: str, plain: Callable[..., Any], hermitian: Callable[..., Any]):
        """`plain` and `hermitian` take the matrices and `rtol`."""
        self.name, self.functions = name, (plain, hermitian)

    def supports(self, case: Case) -> bool:
        """As the protocol says."""
        return case.operation == VALUE

    def prepare(
        self, case: Case, inputs: Sequence[NDArray], directions: tuple[NDArray, NDArray]
    ) -> Prepared:
        """As the protocol says."""
        function = self.functions[case.hermitian]
        return Prepared(lambda i: function(inputs[i % len(inputs)], case.rtol), 0.0)


class TorchPeer:
    """`torch.linalg.pinv` with reverse-mode derivatives, eager as its users run it."""

    name = TORCH

    def __init__(self, platform: str):
        """On the CPU or on the GPU that torch finds."""
        self.torch: Any = importlib.import_module("torch")
        self.device = "cuda" if platform == "gpu" else "cpu"

    def supports(self, case: Case) -> bool:
        """As the protocol says."""
        return case.operation in OPERATIONS

    def prepare(
        self, case: Case, inputs: Sequence[NDArray], directions: tuple[NDArray, NDArray]
    ) -> Prepared:
        """As the protocol says."""
        torch = self.torch
        cotangent, tangent, *arrays = (
            torch.from_numpy(x).to(self.device) for x in (*directions, *inputs)
        )

        def value(a):
            return torch.linalg.pinv(a, rtol=case.rtol, hermitian=case.hermitian)

        def gradient(a, **kwargs):
            a = a.detach().requires_grad_()
            loss = (cotangent.conj() * value(a)).real.sum()
            return a, torch.autograd.grad(loss, a, **kwargs)[0]

        def hvp(a):
            a, slope = gradient(a, create_graph=True)
            return torch.autograd.grad((tangent.conj() * slope).real.sum(), a)[0]

        operation = {VALUE: value, GRADIENT: gradient, HVP: hvp}[case.operation]

        def call(index: int) -> object:
            result = operation(arrays[index % len(arrays)])
            if self.device == "cuda":
                torch.cuda.synchronize()
            return result

        return Prepared(call, 0.0)


def available(platform: str) -> tuple[list[Peer], dict[str, str]]:
    """The methods on this platform, the reference first, and why others are missing."""
    peers: list[Peer] = [
        JaxPeer(REFERENCE, jaxpinv.pinv),
        JaxPeer(JNP, lambda a, rtol, h: jnp.linalg.pinv(a, rtol=rtol, hermitian=h)),
    ]
    missing: dict[str, str] = {}
    for name, make in (
        (TORCH, _torch),
        ("numpy.linalg.pinv", _numpy),
        ("scipy.linalg.pinv", _scipy),
    ):
        try:
            peers.append(make(platform))
        except (ImportError, RuntimeError) as error:
            missing[name] = str(error)
    return peers + _scale(), missing


def _torch(platform: str) -> Peer:
    peer = TorchPeer(platform)
    if platform == "gpu" and not peer.torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU")
    return peer


def _numpy(platform: str) -> Peer:
    if platform == "gpu":
        raise RuntimeError("runs on the CPU only")

    def pinv(a, rtol, hermitian=False):
        return np.linalg.pinv(a, rtol=rtol, hermitian=hermitian)

    return HostPeer("numpy.linalg.pinv", pinv, lambda a, rtol: pinv(a, rtol, True))


def _scipy(platform: str) -> Peer:
    linalg: Any = importlib.import_module("scipy.linalg")
    if platform == "gpu":
        raise RuntimeError("runs on the CPU only")

    def matrix_by_matrix(function):
        def batched(a, rtol):
            if a.ndim == 2:
                return function(a, rtol=rtol)
            return np.stack([function(x, rtol=rtol) for x in a])

        return batched

    return HostPeer(
        "scipy.linalg.pinv",
        matrix_by_matrix(linalg.pinv),
        matrix_by_matrix(linalg.pinvh),
    )


def _scale() -> list[Peer]:
    """The functions for scale, for full-rank values."""

    def only_value(case):
        return case.operation == VALUE and case.rank == "full" and not case.hermitian

    def square(case):
        return only_value(case) and case.shape[-1] == case.shape[-2]

    def gram(a, rtol, hermitian):
        tall = a if a.shape[-2] >= a.shape[-1] else a.mT
        return jnp.matmul(tall.mT, tall, precision="highest")

    inv, qr, svd, product = SCALE
    return [
        JaxPeer(inv, lambda a, *_: jnp.linalg.inv(a), square),
        JaxPeer(qr, lambda a, *_: jnp.linalg.qr(a), only_value),
        JaxPeer(svd, lambda a, *_: jnp.linalg.svd(a, full_matrices=False), only_value),
        JaxPeer(product, gram, only_value),
    ]
