r"""Exact simplification: an expression as a product of powers of irreducible polynomials in a few generators.

The generators of an expression are t, its irrational constants, and for each family of functions one or a few that the
others are rational functions of:

    exp(u), sinh(u), ...    E = exp(g),       u an integer multiple of g
    sin(u), tan(u), ...     T = tan(g / 2),   sin g = 2T / (1 + T^2),  cos g = (1 - T^2) / (1 + T^2)
    f ** (p / q)            the powers of a product may be fractions; in a sum, R = f ** (1 / q) with R ** q = f
    log(f) and others       themselves

Polynomials over the rationals factor in one way, so what can cancel does, and an expression is zero in these
generators exactly if its numerator is the zero polynomial. What is found to be zero is zero; two constants that happen
to be related, such as exp(log(2) / 3) and 2 ** (1 / 3), are not recognised.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import sympy as sp
from sympy.functions.elementary.hyperbolic import HyperbolicFunction
from sympy.functions.elementary.trigonometric import TrigonometricFunction
from sympy.polys.domains import QQ
from sympy.polys.rings import PolyElement, PolyRing

from interpolants.expression import t

MAX_TERMS: Final = 400
"""Of a polynomial; beyond it an expression is left as it is."""
MAX_TERMS_TO_FACTOR: Final = 60
MAX_MULTIPLE: Final = 16
"""Of an angle: sin(n u) is a polynomial of degree n."""
SPARE_GENERATORS: Final = 16

_PROBES = np.linspace(0.0, 1.0, 65)[1:-1]


class TooComplex(Exception):  # noqa: N818 - not an error: the expression is then left as it is
    """The normal form would be too large, or the sign of a radicand is not clear."""


@functools.cache
def simplified(expr: sp.Expr) -> sp.Expr:
    """The expression with what cancels cancelled; as it stands where its normal form is too large."""
    if isinstance(expr, sp.Piecewise):
        return sp.Piecewise(*((simplified(piece), condition) for piece, condition in expr.args))
    normal_form = _normal_form(expr, functions_apart=False)
    if normal_form is None:
        normal_form = _normal_form(expr, functions_apart=True)
    return expr if normal_form is None else normal_form


def _normal_form(expr: sp.Expr, functions_apart: bool) -> sp.Expr | None:
    try:
        field = _Field(expr, functions_apart)
        return field.expression(field.value(expr))
    except TooComplex:
        return None


@functools.cache
def is_zero(expr: sp.Expr) -> bool:
    """Whether the expression is proved to be zero at all t in (0, 1): its normal form is. False is no proof."""
    try:
        return not _Field(expr).value(expr).coefficient
    except TooComplex:
        return False


@dataclass(frozen=True)
class _Product:
    """coefficient * product of base ** exponent; every base is an irreducible polynomial, or a prime number."""

    coefficient: Any
    powers: dict[PolyElement, Fraction]

    def times(self, other: _Product) -> _Product:
        powers = dict(self.powers)
        for base, exponent in other.powers.items():
            powers[base] = powers.get(base, Fraction(0)) + exponent
        return _collected(self.coefficient * other.coefficient, powers)


def _collected(coefficient: Any, powers: dict[PolyElement, Fraction]) -> _Product:
    """Without bases to the power 0, and with the whole powers of a prime in the coefficient."""
    kept = {}
    for base, exponent in powers.items():
        if base.is_ground and exponent:
            whole = math.floor(exponent)
            coefficient *= base.LC**whole
            exponent -= whole
        if exponent and coefficient:
            kept[base] = exponent
    return _Product(coefficient, kept)


class _Field:
    """The generators of one expression, and arithmetic with them.

    With ``functions_apart`` every function is a generator of its own, related to no other: smaller polynomials.
    """

    def __init__(self, expr: sp.Expr, functions_apart: bool = False) -> None:
        self._exponents, self._angles = _Basis(), _Basis()
        if not functions_apart:
            for function in expr.atoms(sp.Function, sp.Pow):
                self._collect(function)
        self._exponents.settle()
        self._angles.settle()
        self.generators: list[sp.Expr] = [t]
        self._roots: dict[tuple[PolyElement, int], PolyElement] = {}
        self._opaque: dict[sp.Expr, PolyElement] = {}
        self._signs: dict[PolyElement, int] = {}
        self._tangents: dict[int, sp.Expr] = {}
        size = 1 + len(self._exponents.generators) + len(self._angles.generators) + SPARE_GENERATORS
        self.ring = PolyRing([f"x{i}" for i in range(size)], QQ, "lex")
        self._numbers: list[Any] = [_PROBES]
        self._exponential = {g: self._new(sp.exp(g)) for g in self._exponents.generators}
        self._tangent = {}
        for g in self._angles.generators:
            self._tangents[len(self.generators)] = g
            self._tangent[g] = self._new(sp.tan(g / 2))

    def _collect(self, function: sp.Expr) -> None:
        if isinstance(function, (sp.exp, HyperbolicFunction)):
            self._exponents.add(function.args[0])
        elif isinstance(function, TrigonometricFunction):
            self._angles.add(function.args[0])
        elif function.is_Pow and not function.exp.is_Rational:
            self._exponents.add(_exponent(function))

    def _new(self, meaning: sp.Expr) -> PolyElement:
        index = len(self.generators)
        if index == len(self.ring.gens):
            raise TooComplex
        self.generators.append(meaning)
        self._numbers.append(_sampled(meaning))
        return self.ring.gens[index]

    # Expression to normal form

    def value(self, expr: sp.Expr) -> _Product:
        """The normal form of an expression in the generators that were collected from it."""
        if expr.is_Rational:
            return _Product(QQ.from_sympy(expr), {})
        if expr == t:
            return self._base(self.ring.gens[0])
        if expr.is_Add:
            return self._sum([self.value(argument) for argument in expr.args])
        if expr.is_Mul:
            return functools.reduce(_Product.times, map(self.value, expr.args))
        if expr.is_Pow and expr.exp.is_Rational and expr.base != sp.E:
            return self._power(self.value(expr.base), Fraction(int(expr.exp.p), int(expr.exp.q)))
        if isinstance(expr, sp.exp) or expr.is_Pow:
            return self._exp(expr)
        if isinstance(expr, HyperbolicFunction):
            return self.value(expr.rewrite(sp.exp))
        if isinstance(expr, TrigonometricFunction) and self._angles.generators:
            return self._trigonometric(expr)
        return self._base(self._unknown(expr))

    def _base(self, polynomial: PolyElement, exponent: Fraction = Fraction(1)) -> _Product:
        return _Product(QQ(1), {polynomial: exponent})

    def _unknown(self, expr: sp.Expr) -> PolyElement:
        if expr.is_Function and expr.has(t):
            expr = expr.func(*map(simplified, expr.args))
        if expr not in self._opaque:
            self._opaque[expr] = self._new(expr)
        return self._opaque[expr]

    def _exp(self, expr: sp.Expr) -> _Product:
        multiples = self._exponents.multiples(_exponent(expr))
        if multiples is None:
            return self._base(self._unknown(expr))
        return _collected(QQ(1), {self._exponential[g]: Fraction(n) for g, n in multiples})

    def _trigonometric(self, expr: sp.Expr) -> _Product:
        multiples = self._angles.multiples(expr.args[0])
        if multiples is None:
            return self._base(self._unknown(expr))
        cosine, sine, norm = self.ring.one, self.ring.zero, _Product(QQ(1), {})
        for g, n in multiples:  # (cosine + i sine) / norm = product of ((1 + i T) ** 2 / (1 + T^2)) ** n
            if abs(n) > MAX_MULTIPLE:
                raise TooComplex
            tangent = self._tangent[g] if n > 0 else -self._tangent[g]
            one = 1 + tangent**2
            norm = norm.times(self._base(one, Fraction(abs(n))))
            for _ in range(abs(n)):
                real, imaginary = 1 - tangent**2, 2 * tangent
                cosine, sine = cosine * real - sine * imaginary, cosine * imaginary + sine * real
                self._check_size(cosine)
        cos, sin = (self._factored(p).times(self._power(norm, Fraction(-1))) for p in (cosine, sine))
        parts = {sp.sin: (sin, 1), sp.cos: (cos, 1), sp.csc: (sin, -1), sp.sec: (cos, -1)}
        if expr.func in parts:
            product, sign = parts[expr.func]
            return self._power(product, Fraction(sign))
        first, second = (sin, cos) if expr.func is sp.tan else (cos, sin)
        return first.times(self._power(second, Fraction(-1)))

    def _power(self, product: _Product, exponent: Fraction) -> _Product:
        if not product.coefficient:
            if exponent <= 0:
                raise TooComplex
            return product
        if exponent.denominator == 1:
            powers = {base: e * exponent for base, e in product.powers.items()}
            return _collected(product.coefficient ** int(exponent), powers)
        if product.coefficient < 0 or any(self._sign(base) != 1 for base in product.powers):
            raise TooComplex
        powers = {base: e * exponent for base, e in product.powers.items()}
        coefficient = product.coefficient
        for integer, sign in ((int(coefficient.numerator), 1), (int(coefficient.denominator), -1)):
            for prime, multiplicity in sp.factorint(integer).items():
                base = self.ring(prime)
                powers[base] = powers.get(base, Fraction(0)) + sign * multiplicity * exponent
        return _collected(QQ(1), powers)

    def _sum(self, products: list[_Product]) -> _Product:
        products = [p for p in products if p.coefficient]
        if not products:
            return _Product(QQ(0), {})
        bases = {base for p in products for base in p.powers}
        common = {base: min(p.powers.get(base, Fraction(0)) for p in products) for base in bases}
        total = self.ring.zero
        for p in products:
            rest = {base: p.powers.get(base, Fraction(0)) - common[base] for base in bases}
            total += self._expanded(p.coefficient, rest)
        return self._factored(total).times(_collected(QQ(1), common))

    def _expanded(self, coefficient: Any, powers: dict[PolyElement, Fraction]) -> PolyElement:
        result = self.ring(coefficient)
        for base, exponent in powers.items():
            whole = math.floor(exponent)
            for _ in range(whole):
                result *= base
                self._check_size(result)
            if part := exponent - whole:
                result *= self._root(base, part.denominator) ** part.numerator
        return self._reduced(result)

    def _root(self, base: PolyElement, degree: int) -> PolyElement:
        if (base, degree) not in self._roots:
            self._roots[base, degree] = self._new(self._to_expr(base) ** sp.Rational(1, degree))
        return self._roots[base, degree]

    def _reduced(self, polynomial: PolyElement) -> PolyElement:
        """The same number with R ** q replaced by f wherever R = f ** (1 / q)."""
        for (base, degree), root in self._roots.items():
            index = self.ring.gens.index(root)
            while any(monomial[index] >= degree for monomial in polynomial):
                result = self.ring.zero
                for monomial, coefficient in polynomial.terms():
                    whole, left = divmod(monomial[index], degree)
                    rest = (*monomial[:index], left, *monomial[index + 1 :])
                    result += self.ring({rest: coefficient}) * base**whole
                polynomial = result
                self._check_size(polynomial)
        return polynomial

    def _check_size(self, polynomial: PolyElement) -> None:
        if len(polynomial) > MAX_TERMS:
            raise TooComplex

    def _factored(self, polynomial: PolyElement) -> _Product:
        if not polynomial:
            return _Product(QQ(0), {})
        if len(polynomial) > MAX_TERMS_TO_FACTOR:
            content, primitive = polynomial.primitive()
            factors = [(primitive, 1)]
        else:
            content, factors = polynomial.factor_list()
        coefficient = QQ.convert(content)
        powers: dict[PolyElement, Fraction] = {}
        owner = {root: (base, degree) for (base, degree), root in self._roots.items()}
        for factor, multiplicity in factors:
            base, exponent = owner.get(factor, (factor, 1))
            if factor not in owner and not base.is_ground:
                scale, base = base.primitive()
                coefficient *= scale**multiplicity
                if self._sign(base) == -1 or (self._sign(base) == 0 and base.LC < 0):
                    base, coefficient = -base, coefficient * (-1) ** multiplicity
            powers[base] = powers.get(base, Fraction(0)) + Fraction(multiplicity, exponent)
        return _collected(coefficient, powers)

    def _sign(self, polynomial: PolyElement) -> int:
        """1 or -1 where the sign on (0, 1) is that, 0 where it is not clear."""
        if polynomial not in self._signs:
            values, size = 0.0, 0.0
            for monomial, coefficient in polynomial.terms():
                term = float(coefficient)
                for number, exponent in zip(self._numbers, monomial, strict=False):
                    if exponent:
                        term = term * number**exponent
                values, size = values + term, size + np.abs(term)
            clear = np.abs(values) > 1e-13 * size
            positive, negative = np.all(clear & (values > 0)), np.all(clear & (values < 0))
            self._signs[polynomial] = 1 if positive else -1 if negative else 0
        return self._signs[polynomial]

    # Normal form to expression

    def expression(self, product: _Product) -> sp.Expr:
        """The normal form, written in functions of t again."""
        result = QQ.to_sympy(product.coefficient)
        halves: dict[sp.Expr, list[Fraction]] = {g: [Fraction(0), Fraction(0)] for g in self._tangents.values()}
        for base, exponent in self._merged(product.powers):
            power = sp.Rational(exponent.numerator, exponent.denominator)
            factor, degrees = self._in_angles(base)
            for g, (sine_degree, cosine_degree) in degrees.items():
                halves[g][0] += sine_degree * exponent
                halves[g][1] += cosine_degree * exponent
            result *= factor**power
        for g, (of_sine, of_cosine) in halves.items():
            result *= _half_angles(g, of_sine, of_cosine)
        return _with_tangents(result)

    def _merged(self, powers: dict[PolyElement, Fraction]) -> list[tuple[PolyElement, Fraction]]:
        """Bases of the same power multiplied where that makes them no longer: (1 - E)(1 + E) is 1 - E^2."""
        merged: list[tuple[PolyElement, Fraction]] = []
        for base, exponent in sorted(powers.items(), key=lambda item: (item[1], str(item[0]))):
            for i, (other, same) in enumerate(merged):
                if same == exponent and len(base) > 1 and len(other) > 1 and _linear(base) == _linear(other):
                    product = base * other
                    if len(product) <= max(len(base), len(other)):
                        merged[i] = (product, exponent)
                        break
            else:
                merged.append((base, exponent))
        return merged

    def _in_angles(self, base: PolyElement) -> tuple[sp.Expr, dict[sp.Expr, tuple[int, int]]]:
        """A polynomial as an expression in sin g and cos g, and the powers of sin(g / 2) and cos(g / 2) beside it."""
        degrees: dict[sp.Expr, tuple[int, int]] = {}
        used = [i for i in self._tangents if base.degree(base.ring.gens[i]) > 0]
        if not used:
            return self._to_expr(base), degrees
        symbols = {i: sp.Dummy() for i in used}
        expr = base.as_expr(*(symbols.get(i, g) for i, g in enumerate(self._meanings())))
        for i in used:
            g = self._tangents[i]
            polynomial = sp.Poly(expr, symbols[i])
            degree = polynomial.degree()
            if polynomial == sp.Poly(symbols[i], symbols[i]):
                expr, degrees[g] = sp.Integer(1), (1, -1)
            else:
                expr, degrees[g] = _homogeneous(polynomial, degree, g), (0, -degree)
        return expr, degrees

    def _meanings(self) -> list[sp.Expr]:
        spare = len(self.ring.gens) - len(self.generators)
        return [*self.generators, *[sp.Integer(0)] * spare]

    def _to_expr(self, polynomial: PolyElement) -> sp.Expr:
        return polynomial.as_expr(*self._meanings())


def _linear(polynomial: PolyElement) -> tuple[int, ...]:
    """Of which generators a polynomial is made."""
    return tuple(i for i in range(len(polynomial.ring.gens)) if any(monomial[i] for monomial in polynomial))


def _homogeneous(polynomial: sp.Poly, degree: int, g: sp.Expr) -> sp.Expr:
    """cos(g / 2) ** degree times a polynomial in tan(g / 2)."""
    if degree % 2:
        sine, cosine = sp.sin(g / 2), sp.cos(g / 2)
        return sp.Add(*(c * sine**k * cosine ** (degree - k) for (k,), c in polynomial.terms()))
    s, c = sp.Dummy("s"), sp.Dummy("c")
    total = sp.Integer(0)
    for (k,), coefficient in polynomial.terms():
        odd = k % 2
        total += (
            coefficient
            * (s / 2) ** odd
            * ((1 - c) / 2) ** ((k - odd) // 2)
            * ((1 + c) / 2) ** ((degree - k - odd) // 2)
        )
    return sp.expand(total).xreplace({s: sp.sin(g), c: sp.cos(g)})


def _half_angles(g: sp.Expr, of_sine: Fraction, of_cosine: Fraction) -> sp.Expr:
    """sin(g / 2) ** a cos(g / 2) ** b, with sin g where both have powers of one sign."""
    result = sp.Integer(1)
    if of_sine * of_cosine > 0:
        both = min(of_sine, of_cosine, key=abs)
        result *= (sp.sin(g) / 2) ** sp.Rational(both.numerator, both.denominator)
        of_sine, of_cosine = of_sine - both, of_cosine - both
    for function, power in ((sp.sin, of_sine), (sp.cos, of_cosine)):
        result *= function(g / 2) ** sp.Rational(power.numerator, power.denominator)
    return result


def _with_tangents(expr: sp.Expr) -> sp.Expr:
    """sin(u) / cos(u) as tan(u)."""
    powers = expr.as_powers_dict()
    for sine, power in list(powers.items()):
        cosine = sp.cos(sine.args[0]) if isinstance(sine, sp.sin) else None
        if cosine in powers and (power * powers[cosine]).is_negative:
            common = min(power, -powers[cosine], key=abs)
            expr = expr * (cosine / sine * sp.tan(sine.args[0])) ** common
    return expr


class _Basis:
    """Of a set of arguments: generators of which each is a sum of whole multiples."""

    def __init__(self) -> None:
        self._arguments: dict[sp.Expr, dict[sp.Expr, sp.Rational]] = {}
        self.generators: list[sp.Expr] = []
        self._multiples: dict[sp.Expr, list[tuple[sp.Expr, int]]] = {}

    def add(self, argument: sp.Expr) -> None:
        """Take an argument into the set."""
        terms: dict[sp.Expr, sp.Rational] = {}
        for term in sp.Add.make_args(sp.expand(argument)):
            number, monomial = term.as_coeff_Mul(rational=True)
            terms[monomial] = terms.get(monomial, sp.Integer(0)) + number
        self._arguments[argument] = terms

    def settle(self) -> None:
        """Choose the generators: the common direction where all arguments have one, else their monomials."""
        directions = {_direction(terms) for terms in self._arguments.values()}
        if len(directions) == 1:
            monomial = next(iter(next(iter(self._arguments.values()))))
            numbers = {argument: terms[monomial] for argument, terms in self._arguments.items()}
            first = min(numbers, key=lambda argument: (abs(numbers[argument]), sp.count_ops(argument)))
            whole = _primitive(numbers.values()) * sp.sign(numbers[first])
            self.generators = [first * (whole / numbers[first])]
            self._multiples = {a: [(self.generators[0], int(number / whole))] for a, number in numbers.items()}
            return
        monomials = sorted({m for terms in self._arguments.values() for m in terms}, key=str)
        for monomial in monomials:
            whole = _primitive([terms[monomial] for terms in self._arguments.values() if monomial in terms])
            generator = whole * monomial
            self.generators.append(generator)
            for argument, terms in self._arguments.items():
                if monomial in terms:
                    self._multiples.setdefault(argument, []).append((generator, int(terms[monomial] / whole)))

    def multiples(self, argument: sp.Expr) -> list[tuple[sp.Expr, int]] | None:
        """The argument as a sum of whole multiples of generators; None where it is not in the set."""
        return self._multiples.get(argument)


def _direction(terms: dict[sp.Expr, sp.Rational]) -> tuple[tuple[sp.Expr, sp.Rational], ...]:
    ordered = sorted(terms.items(), key=lambda item: str(item[0]))
    first = ordered[0][1]
    return tuple((monomial, number / first) for monomial, number in ordered)


def _primitive(numbers: Iterable[sp.Rational]) -> sp.Rational:
    """The largest rational of which all are whole multiples."""
    numbers = list(numbers)
    denominator = sp.ilcm(*(n.q for n in numbers), 1)
    return sp.Rational(sp.igcd(*(abs(n.p) * (denominator // n.q) for n in numbers), 0), denominator)


def _exponent(expr: sp.Expr) -> sp.Expr:
    """u of an expression that is exp(u)."""
    if isinstance(expr, sp.exp):
        return expr.args[0]
    return expr.exp * sp.log(expr.base)


_NUMERICAL: Final[dict[str, Callable[..., Any]]] = {
    "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "Abs": np.abs,
}  # fmt: skip


def _sampled(expr: sp.Expr) -> Any:
    """The values at a few times, to see a sign."""
    if expr == t:
        return _PROBES
    if not expr.has(t):
        return float(sp.re(sp.N(expr, 17)))
    if expr.is_Add:
        return sum(map(_sampled, expr.args))
    with np.errstate(all="ignore"):
        if expr.is_Mul:
            return math.prod(map(_sampled, expr.args))
        if expr.is_Pow:
            return np.power(_sampled(expr.base), _sampled(expr.exp))
        if type(expr).__name__ in _NUMERICAL:
            return _NUMERICAL[type(expr).__name__](*map(_sampled, expr.args))
    raise TooComplex
