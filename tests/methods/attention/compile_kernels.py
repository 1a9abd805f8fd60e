"""Compile the family's Triton kernels for a GPU that need not be there; run by `test_kernels_compile`.

A process of its own, because Triton chooses between compiler and interpreter when it is first imported.
"""

from __future__ import annotations

import importlib
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

TILES = {"ROWS": 64, "KEYS": 64, "Q_DIM": 32, "V_DIM": 32}
HALF = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*bf16")
SINGLE = dict.fromkeys(
    ("lse_ptr", "top_ptr", "bias_ptr", "z_ptr", "w_ptr", "least_ptr", "sums_ptr", "whole_ptr", "both_ptr"),
    "*fp32",
)
OTHER = {"entries_ptr": "*i32", "mask_ptr": "*u8", "keep_ptr": "*i8", "scale": "fp32", "root": "fp32"}
POLYNOMIAL = {"DEGREE": 4, "ROWS": 64, "COLUMNS": 32, "V_DIM": 16}

KERNELS: list[tuple[str, str, dict[str, int]]] = [
    ("block_sparse_kernel", "_attend", TILES | {"CAUSAL": 1, "ADD": 0, "SPAN": 128, "TILES": 2}),
    ("block_sparse_kernel", "_attend", TILES | {"CAUSAL": 0, "ADD": 1, "SPAN": 1, "TILES": 1}),
    ("flatformer.fused", "_attend", {"HAS_MASK": 1, "ROWS": 64, "KEYS": 64, "DIM": 16}),
    ("hyperattention.fused", "_attend", TILES | {"HAS_BIAS": 1, "ADD": 1}),
    ("ntk_attention.fused", "_attend", {"CAUSAL": 1, "ROWS": 64, "KEYS": 64, "DIM": 32, "V_DIM": 32}),
    ("routing_transformer.kernel", "_attend", TILES | {"CAUSAL": 1, "SELF": 1, "SHARED": 1}),
    ("anchor_attention.kernel", "_passing", {"QUERIES": 16, "KEYS": 128, "DIMS": 32}),
    ("tensor_attention.kernel", "_moments", POLYNOMIAL),
    ("tensor_attention.kernel", "_readout", POLYNOMIAL),
]


def main() -> None:
    for module, name, constants in KERNELS:
        kernel: Any = getattr(importlib.import_module(f"methods.attention.{module}"), name)
        types = HALF | SINGLE | OTHER
        signature = {
            a: "constexpr" if a in constants else types.get(a, "*i64" if a.endswith("_ptr") else "i32")
            for a in kernel.arg_names
        }
        values = {(kernel.arg_names.index(a),): value for a, value in constants.items()}
        made = compile(ASTSource(kernel, signature, constexprs=values), target=GPUTarget("cuda", 90, 32))
        print(module, name, len(made.asm["cubin"]), flush=True)


if __name__ == "__main__":
    main()
