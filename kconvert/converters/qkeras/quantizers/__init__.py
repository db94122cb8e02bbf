"""QKeras quantizers in fixed point: what each does to weights and to activations, and the type of the result.

This is where configuration, weights and activations take from what a quantizer means. It needs numpy only, so a model
read from files converts without QKeras or Keras. All arithmetic that decides a result is done in float32 in the order
QKeras does it.

============== =====================================================================
`table`        the one table of all quantizers: options, type, response, scale
`quantizer`    a quantizer with its options, and what can be asked of it
`reading`      from strings, config dictionaries and live objects
`responses`    what an activation computes, as data
`functions`    which response a quantizer has, and the type of its values
`powers`       the same for powers of two
`scales`       the scale that ``alpha="auto"`` takes from the weights
`bisection`    where a function of float32 changes its quantised value
============== =====================================================================

What QKeras computes is ``x + (q - x)`` in float32 (the straight-through form that gives it a gradient), not the
quantised value ``q`` itself; this package describes ``q``. The two are equal wherever ``q - x`` is exact, and differ by
at most the float32 rounding of that difference, which is large only where `x` lies far outside the range.

Options without effect at inference are accepted and ignored: ``use_stochastic_rounding``, ``use_ste``, ``var_name``,
``use_variables``, ``temperature`` and ``use_real_sigmoid`` of the stochastic quantizers. ``qnoise_factor`` does have an
effect: below 1 QKeras mixes the unquantised value into its result.

"Hard" tanh and sigmoid are those of QKeras' default, ``set_internal_sigmoid("hard")``; no model file says which one was
set.
"""

from kconvert.converters.qkeras.quantizers.quantizer import Quantized, Quantizer
from kconvert.converters.qkeras.quantizers.reading import read_quantizer
from kconvert.converters.qkeras.quantizers.responses import Activation, Affine, Convert, Rectify, Steps, Table
from kconvert.converters.qkeras.quantizers.table import QUANTIZERS, known_quantizers

__all__ = [
    "QUANTIZERS",
    "Activation",
    "Affine",
    "Convert",
    "Quantized",
    "Quantizer",
    "Rectify",
    "Steps",
    "Table",
    "known_quantizers",
    "read_quantizer",
]
