"""Normal noise that equals PyTorch's, so that a seed means the same picture in both."""

from __future__ import annotations

import math

import numpy as np

from triptych.errors import InvalidRequest

_BLOCK = 16
_TWO_PI = np.float32(2 * math.pi)


class Noise:
    """The stream that repeated `torch.randn(shape, generator=g)` calls give on the CPU.

    `g` is `torch.Generator("cpu").manual_seed(seed)`. Its engine is the Mersenne Twister MT19937
    (Matsumoto and Nishimura, 1998), its normals come by the transform of Box and Muller (1958).
    Calls for 16 values or more and calls for fewer use the engine's 32-bit draws in different ways;
    both are followed here, values agree to 1e-6.

    seed: an integer in [-2**63, 2**64), as `manual_seed` accepts; the engine sees its low 32 bits.
    Raises InvalidRequest, a ValueError, for any other.
    """

    def __init__(self, seed):
        if type(seed) is not int or not -(2**63) <= seed < 2**64:
            raise InvalidRequest("seed", seed, "an integer from -2**63 to 2**64 - 1")
        self._engine = np.random.RandomState(seed & 0xFFFFFFFF)
        self._spare = None

    def randn(self, shape):
        """The next values of the stream as a float32 array of that shape."""
        size = math.prod(shape)
        values = self._blocks(size) if size >= _BLOCK else self._singles(size)
        return values.reshape(shape)

    def _draws(self, count):
        return self._engine.randint(0, 2**32, size=count, dtype=np.uint32)

    def _blocks(self, size):
        """Blocks of 16, eight pairs each; an incomplete last block is replaced by 16 new values."""
        tail = size % _BLOCK
        draws = self._draws(size + _BLOCK if tail else size)
        whole = size - tail
        values = np.empty(size, np.float32)
        values[:whole] = _box_muller(draws[:whole])
        if tail:
            values[-_BLOCK:] = _box_muller(draws[size:])
        return values

    def _singles(self, size):
        """One at a time, in float64 from 53-bit uniforms; the second of a pair waits."""
        values = np.empty(size, np.float32)
        for i in range(size):
            if self._spare is not None:
                values[i], self._spare = self._spare, None
                continue
            high1, low1, high2, low2 = (int(draw) for draw in self._draws(4))
            u1 = ((high1 << 32 | low1) & (2**53 - 1)) / 2**53
            u2 = ((high2 << 32 | low2) & (2**53 - 1)) / 2**53
            radius = math.sqrt(-2 * math.log1p(-u2))
            values[i] = radius * math.cos(2 * math.pi * u1)
            self._spare = radius * math.sin(2 * math.pi * u1)
        return values


def _box_muller(draws):
    """Normals from uint32 draws: of each 16, eight radii and eight angles, cosines then sines."""
    uniform = (draws & 0xFFFFFF).astype(np.float32).reshape(-1, 2, _BLOCK // 2)
    uniform *= np.float32(2**-24)
    radius = np.sqrt(-2 * np.log(1 - uniform[:, 0]))
    angle = uniform[:, 1] * _TWO_PI
    values = np.empty_like(uniform)
    np.multiply(radius, np.cos(angle), out=values[:, 0])
    np.multiply(radius, np.sin(angle), out=values[:, 1])
    return values.reshape(-1)
