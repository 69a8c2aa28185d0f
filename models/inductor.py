"""What torch's compiler is told of the blocks: their attention has no mask, so its softmax needs no guard."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

aten = torch.ops.aten


class UnguardedSoftmax(CustomGraphPass):
    """Take torch's guard off a softmax of plain products, where no score is masked.

    Compiled, F.scaled_dot_product_attention gives 0 to a row of scores that are all minus infinity, which a mask can
    leave. Asking each score doubles the time of the softmax. Products are never masked: such a row of theirs has
    overflown, and becomes NaN, which shows.
    """

    def __call__(self, graph: Graph) -> None:
        """Rewrite where(no score > -inf, 0, softmax(scores)) as softmax(scores), in place."""
        for where in graph.find_nodes(op="call_function", target=aten.where.self):
            condition, _, softmax = where.args
            if _are_products(_guarded_scores(condition)):
                where.replace_all_uses_with(softmax)
                graph.erase_node(where)
        graph.eliminate_dead_code()

    def uuid(self) -> Any:
        """What the compiler's cache knows this rewriting by."""
        return get_hash_for_files((__file__,))


def _guarded_scores(condition: Any) -> Any:
    """The scores in not any(not scores == -inf), or None."""
    for target in (aten.logical_not.default, aten.any.dim, aten.logical_not.default):
        condition = _argument(condition, target)
    compared = condition.args[1:] if isinstance(condition, Node) else ()
    return _argument(condition, aten.eq.Scalar) if compared == (-math.inf,) else None


def _are_products(scores: Any) -> bool:
    return _argument(_argument(scores, aten.reshape.default), aten.bmm.default) is not None


def _argument(node: Any, target: Any) -> Any:
    """The first argument of a node that calls the target, or None."""
    return node.args[0] if isinstance(node, Node) and node.target is target else None
