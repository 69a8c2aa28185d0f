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
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import sympy as sp
from flint import arb, fmpq
from sympy.functions.elementary.hyperbolic import HyperbolicFunction
from sympy.functions.elementary.trigonometric import TrigonometricFunction
from sympy.polys.domains import QQ
from sympy.polys.rings import PolyElement, PolyRing

from interpolants import enclosure
from interpolants.effort import operations
from interpolants.enclosure import LOOKS, PRECISIONS, sign, value
from interpolants.expression import t
from interpolants.pieces import each, resolved

MAX_TERMS: Final = 400
"""Of a polynomial; beyond it an expression is left as it is."""
MAX_PRODUCTS: Final = 100_000
"""Of terms with terms, while one expression is brought to normal form."""
MAX_TERMS_TO_FACTOR: Final = 60
MAX_SIZE_TO_FACTOR: Final = 600
"""Of a polynomial written densely: the product of its degrees, each plus one."""
MIN_SWELL: Final = 24
"""A normal form of at least so many terms is not used where it is larger than what it was found from."""
MAX_OPERATIONS: Final = 600
"""Most operations in an expression that is simplified; a larger one is left as it is."""
MAX_SWELL: Final = 100
"""Operations beyond which a normal form has to be no longer than what it was found from."""
MAX_MULTIPLE: Final = 16
"""Of a generator: sin(n u) is a polynomial of degree n, and larger multiples have generators of their own."""
MAX_EXPONENT: Final = 32
MAX_ARGUMENT: Final = 24
"""Operations in an exponent or an angle, no polynomial, that is multiplied out."""
MAX_FACTORED: Final = 10**18
"""Numbers from which on no large factors are looked for."""
SPARE_GENERATORS: Final = 16
MAX_STURM_DEGREE: Final = 30


class TooComplex(Exception):  # noqa: N818 - not an error: the expression is then left as it is
    """The normal form would be too large, or the sign of a radicand is not clear."""


@functools.cache
def simplified(expr: sp.Expr) -> sp.Expr:
    """The expression with what cancels cancelled; as it stands where its normal form is too large.

    One with kinks is a Piecewise of smooth ones then.
    """
    expr = resolved(expr)
    if isinstance(expr, sp.Piecewise):
        return each(simplified, expr)
    if operations(expr) > MAX_OPERATIONS:
        return expr
    normal_form = _normal_form(expr, functions_apart=False)
    if normal_form is None:
        normal_form = _normal_form(expr, functions_apart=True)
    return expr if normal_form is None else normal_form


@functools.cache
def decaying(expr: sp.Expr) -> sp.Expr:
    """The normal form in exponentials that decay, exp(-u) for u > 0, which do not overflow."""
    normal_form = _normal_form(expr, functions_apart=False, decays=True)
    return expr if normal_form is None else normal_form


def _normal_form(expr: sp.Expr, functions_apart: bool, decays: bool = False) -> sp.Expr | None:
    try:
        field = _Field(expr, functions_apart, decays)
        product = field.value(expr)
        size = operations(expr)
        if sum(map(len, product.powers)) > max(MIN_SWELL, size):
            return None
        result = field.expression(product)
        return result if operations(result) <= max(MAX_SWELL, size) else None
    except TooComplex:
        return None


@functools.cache
def is_zero(expr: sp.Expr) -> bool:
    """Whether the expression is proved to be zero at all t in (0, 1): its normal form is. False is no proof."""
    expr = resolved(expr)
    if isinstance(expr, sp.Piecewise):
        return all(is_zero(piece) for piece, _ in expr.args)
    try:
        return not _Field(expr).value(expr).coefficient
    except TooComplex:
        return False


def prime_powers(integer: int) -> dict[int, int]:
    """The prime powers of a positive integer; what is left of one from MAX_FACTORED on may have factors in turn."""
    if integer < MAX_FACTORED:
        return dict(sp.factorint(integer))
    return dict(sp.factorint(integer, limit=1000, use_rho=False, use_pm1=False, use_ecm=False))


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
        if base.is_ground:
            whole = math.floor(exponent)
            coefficient *= base.LC**whole
            exponent -= whole
        if exponent and coefficient:
            kept[base] = exponent
    return _Product(coefficient, kept)


class _Field:
    """The generators of one expression, and arithmetic with them.

    With ``functions_apart`` every function is a generator of its own, related to no other: smaller polynomials. With
    ``decays`` the exponentials among the generators are below 1.
    """

    def __init__(self, expr: sp.Expr, functions_apart: bool = False, decays: bool = False) -> None:
        self._exponents, self._angles = _Basis(), _Basis()
        if not functions_apart:
            for function in expr.atoms(sp.Function, sp.Pow, type(sp.E)):
                self._collect(function)
        self._exponents.settle()
        if decays:
            self._exponents.reverse(lambda g: bool(value(g, sp.Rational(1, 2)) > 0))
        self._angles.settle()
        self.generators: list[sp.Expr] = [t]
        self._roots: dict[tuple[PolyElement, int], PolyElement] = {}
        self._opaque: dict[sp.Expr, PolyElement] = {}
        self._signs: dict[PolyElement, int] = {}
        self._turned: dict[PolyElement, bool] = {}
        self._looks: list[list[arb]] = []
        self._tangents: dict[int, sp.Expr] = {}
        self._values: dict[sp.Expr, _Product] = {}
        self._products = 0
        size = 1 + len(self._exponents.generators) + len(self._angles.generators) + SPARE_GENERATORS
        self.ring = PolyRing([f"x{i}" for i in range(size)], QQ, "lex")
        self._exponential = {g: self._new(sp.exp(g)) for g in self._exponents.generators}
        self._tangent = {}
        for g in self._angles.generators:
            self._tangents[len(self.generators)] = g
            self._tangent[g] = self._new(sp.tan(g / 2))

    def _collect(self, function: sp.Expr) -> None:
        if function == sp.E:
            self._exponents.add(sp.Integer(1))
        elif isinstance(function, (sp.exp, HyperbolicFunction)):
            self._exponents.add(function.args[0])
        elif isinstance(function, TrigonometricFunction):
            self._angles.add(function.args[0], quarter_turns=True)
        elif function.is_Pow and not function.exp.is_Rational:
            self._exponents.add(_exponent(function))

    def _new(self, meaning: sp.Expr) -> PolyElement:
        index = len(self.generators)
        if index == len(self.ring.gens):
            raise TooComplex
        self.generators.append(meaning)
        return self.ring.gens[index]

    # Expression to normal form

    def value(self, expr: sp.Expr) -> _Product:
        """The normal form of an expression in the generators that were collected from it."""
        if expr not in self._values:
            self._values[expr] = self._new_value(expr)
        return self._values[expr]

    def _new_value(self, expr: sp.Expr) -> _Product:
        if expr.is_Rational:
            return _Product(QQ.from_sympy(expr), {})
        if expr == t:
            return self._base(self.ring.gens[0])
        if expr.is_Add:
            return self._sum([self.value(argument) for argument in expr.args])
        if expr.is_Mul:
            return functools.reduce(_Product.times, map(self.value, expr.args))
        if expr.is_Pow and expr.exp.is_Rational:
            return self._power(self.value(expr.base), Fraction(int(expr.exp.p), int(expr.exp.q)))
        if isinstance(expr, sp.exp) or expr.is_Pow or expr == sp.E:
            return self._exp(expr)
        if isinstance(expr, HyperbolicFunction):
            return self.value(expr.rewrite(sp.exp, deep=False))  # not what is inside: of waves it would be complex
        if isinstance(expr, TrigonometricFunction):
            return self._trigonometric(expr)
        if isinstance(expr, (sp.Abs, sp.sign)) and (product := self._positive(expr.args[0])):
            negative = product.coefficient < 0
            if isinstance(expr, sp.sign):
                return _Product(QQ(-1 if negative else 1), {})
            return _Product(abs(product.coefficient), product.powers)
        if expr.is_Function:
            simpler = expr.func(*map(simplified, expr.args))
            if simpler.is_Number:
                return self.value(simpler)
            expr = simpler
        return self._base(self._unknown(expr))

    def _positive(self, expr: sp.Expr) -> _Product | None:
        """The value, where the powers in it are positive on (0, 1)."""
        product = self.value(expr)
        return product if product.coefficient and all(self._sign(base) == 1 for base in product.powers) else None

    def _base(self, polynomial: PolyElement, exponent: Fraction = Fraction(1)) -> _Product:
        return _Product(QQ(1), {polynomial: exponent})

    def _unknown(self, expr: sp.Expr) -> PolyElement:
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
            tangent = self._tangent[g] if n > 0 else -self._tangent[g]
            one = 1 + tangent**2
            norm = norm.times(self._base(one, Fraction(abs(n))))
            for _ in range(abs(n)):
                real, imaginary = 1 - tangent**2, 2 * tangent
                cosine, sine = cosine * real - sine * imaginary, cosine * imaginary + sine * real
                self._check_size(cosine)
        for _ in range(self._angles.quarter_turns(expr.args[0])):
            cosine, sine = -sine, cosine
        cos, sin = (self._factored(p).times(self._power(norm, Fraction(-1))) for p in (cosine, sine))
        parts = {sp.sin: (sin, 1), sp.cos: (cos, 1), sp.csc: (sin, -1), sp.sec: (cos, -1)}
        if expr.func in parts:
            product, power = parts[expr.func]
            return self._power(product, Fraction(power))
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
        if any(e.denominator > 1 and not self._upright(base) for base, e in powers.items()):
            raise TooComplex
        coefficient = product.coefficient
        for integer, side in ((int(coefficient.numerator), 1), (int(coefficient.denominator), -1)):
            for prime, multiplicity in prime_powers(integer).items():  # sympy's numbers may be those of flint
                base = self.ring(int(prime))
                powers[base] = powers.get(base, Fraction(0)) + side * int(multiplicity) * exponent
        return _collected(QQ(1), powers)

    def _upright(self, base: PolyElement) -> bool:
        """Whether cos(g / 2) is positive for every angle in it: a power is written with as many powers of that."""
        return all(
            base.degree(self.ring.gens[i]) <= 0 or sign(sp.cos(g / 2)).value == 1 for i, g in self._tangents.items()
        )

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
                result = self._reduced(self._multiplied(result, base))
            if part := exponent - whole:
                result *= self._root(base, part.denominator) ** part.numerator
        return self._reduced(result)

    def _root(self, base: PolyElement, degree: int) -> PolyElement:
        if (base, degree) not in self._roots:
            self._roots[base, degree] = self._new(self.expression(self._base(base, Fraction(1, degree))))
        return self._roots[base, degree]

    def _reduced(self, polynomial: PolyElement) -> PolyElement:
        """The same number with R ** q replaced by f wherever R = f ** (1 / q)."""
        for (base, degree), root in self._roots.items():
            index = self.ring.gens.index(root)
            while any(monomial[index] >= degree for monomial in polynomial):
                result = self.ring.zero
                for monomial, coefficient in polynomial.terms():
                    whole, left = divmod(monomial[index], degree)
                    term = self.ring({(*monomial[:index], left, *monomial[index + 1 :]): coefficient})
                    for _ in range(whole):
                        term = self._multiplied(term, base)
                    result += term
                polynomial = result
                self._check_size(polynomial)
        return polynomial

    def _multiplied(self, first: PolyElement, second: PolyElement) -> PolyElement:
        self._products += len(first) * len(second)
        if self._products > MAX_PRODUCTS:
            raise TooComplex
        product = first * second
        self._check_size(product)
        return product

    def _check_size(self, polynomial: PolyElement) -> None:
        if len(polynomial) > MAX_TERMS:
            raise TooComplex

    def _factored(self, polynomial: PolyElement) -> _Product:
        if not polynomial:
            return _Product(QQ(0), {})
        coefficient, factors = _factors(polynomial)
        powers: dict[PolyElement, Fraction] = {}
        owner = {root: (base, degree) for (base, degree), root in self._roots.items()}
        for found, multiplicity in factors:
            factor = self.ring.from_dict(dict(found))  # sympy keeps the hash of what a polynomial was made from
            base, exponent = owner.get(factor, (factor, 1))
            if self._is_to_be_turned(base):
                base, coefficient = -base, coefficient * (-1) ** multiplicity
            powers[base] = powers.get(base, Fraction(0)) + Fraction(int(multiplicity), exponent)
        return _collected(coefficient, powers)

    def _sign(self, polynomial: PolyElement) -> int:
        """1 or -1 where the sign on (0, 1) is proved to be that, 0 where it is not clear."""
        if polynomial not in self._signs:
            self._signs[polynomial] = self._find_sign(polynomial)
        return self._signs[polynomial]

    def _is_to_be_turned(self, polynomial: PolyElement) -> bool:
        """Whether minus the polynomial is written: where it looks negative, so that what is written looks positive."""
        if polynomial not in self._turned:
            looks = {enclosure.sign_of(ball) for ball in self._at_looks(polynomial)}
            if 0 in looks:
                looks = enclosure.looks(self._to_expr(polynomial))
            self._turned[polynomial] = looks == {-1} if looks in ({1}, {-1}) else polynomial.LC < 0
        return self._turned[polynomial]

    def _at_looks(self, polynomial: PolyElement) -> list[arb]:
        """The values at a few times, from those of the generators."""
        for generator in self.generators[len(self._looks) :]:
            self._looks.append([enclosure.value(generator, time, 1, PRECISIONS[:1]) for time in LOOKS])
        values = [arb(0) for _ in LOOKS]
        with enclosure.precision(PRECISIONS[0]):
            for monomial, coefficient in polynomial.terms():
                number = arb(fmpq(int(coefficient.numerator), int(coefficient.denominator)))
                used = [(self._looks[i], int(power)) for i, power in enumerate(monomial) if power]
                for k, value_there in enumerate(values):
                    values[k] = value_there + math.prod((at[k] ** power for at, power in used), start=number)
        return values

    def _find_sign(self, polynomial: PolyElement) -> int:
        if _generators(polynomial) == (0,) and polynomial.degree() <= MAX_STURM_DEGREE:  # exactly, by Sturm's theorem
            in_t = sp.Poly(self._to_expr(polynomial), t)
            roots = in_t.count_roots(0, 1) - sum(in_t.eval(end) == 0 for end in (0, 1))
            return 0 if roots else int(sp.sign(in_t.eval(sp.Rational(1, 2))))
        expr = self._to_expr(polynomial)
        if len(polynomial) > MAX_TERMS_TO_FACTOR or operations(expr) > MAX_OPERATIONS:
            return 0
        return sign(expr).value

    # Normal form to expression

    def expression(self, product: _Product) -> sp.Expr:
        """The normal form, written in functions of t again."""
        result = QQ.to_sympy(product.coefficient)
        halves: dict[sp.Expr, list[Fraction]] = {g: [Fraction(0), Fraction(0)] for g in self._tangents.values()}
        for base, exponent in self._merged(product.powers):
            power = sp.Rational(exponent.numerator, exponent.denominator)
            number, factor, degrees = self._in_angles(base)
            for g, (sine_degree, cosine_degree) in degrees.items():
                halves[g][0] += sine_degree * exponent
                halves[g][1] += cosine_degree * exponent
            if factor.is_Add and len(factor.args) == 2:
                factor = addition_theorem(*factor.args) or factor
            result *= number**power * factor**power
        for g, (of_sine, of_cosine) in halves.items():
            result *= _half_angles(g, of_sine, of_cosine)
        return _with_tangents(result)

    def _merged(self, powers: dict[PolyElement, Fraction]) -> list[tuple[PolyElement, Fraction]]:
        """Bases of the same power multiplied where that makes them no longer: (1 - E)(1 + E) is 1 - E^2, and with
        a and b for cosines, (a - b)(a + b) is a^2 - b^2.
        """
        merged: list[tuple[PolyElement, Fraction]] = []
        for base, exponent in sorted(powers.items(), key=lambda item: (item[1], str(item[0]))):
            for i, (other, same) in enumerate(merged):
                if same == exponent and len(base) > 1 and len(other) > 1 and _generators(base) == _generators(other):
                    product = base * other
                    if self._terms(product) <= max(self._terms(base), self._terms(other)):
                        merged[i] = (product, exponent)
                        break
            else:
                merged.append((base, exponent))
        return merged

    def _in_angles(self, base: PolyElement) -> tuple[sp.Rational, sp.Expr, dict[sp.Expr, tuple[int, int]]]:
        """A polynomial as a number, an expression in sin g and cos g, and powers of sin(g / 2) and cos(g / 2)."""
        degrees = {i: base.degree(self.ring.gens[i]) for i in self._tangents}
        used = [i for i, degree in degrees.items() if degree > 0]
        if len(used) == 1 and base == self.ring.gens[used[0]]:
            return sp.Integer(1), sp.Integer(1), {self._tangents[used[0]]: (1, -1)}
        if any(degrees[i] > 2 * MAX_MULTIPLE for i in used):
            raise TooComplex
        total: dict[tuple[int, ...], dict[tuple[tuple[int, int], ...], Any]] = {}
        for monomial, coefficient in base.terms():
            others = tuple(0 if i in used else power for i, power in enumerate(monomial))
            of_angles = total.setdefault(others, {})
            for factors in itertools.product(*(_homogeneous(degrees[i], monomial[i]) for i in used)):
                powers = tuple(power for power, _ in factors)
                number = math.prod((c for _, c in factors), start=coefficient)
                of_angles[powers] = of_angles.get(powers, 0) + number
        content = _primitive([QQ.to_sympy(c) for numbers in total.values() for c in numbers.values()])
        waves = [tuple(wave(g / (1 + degrees[i] % 2)) for wave in (sp.sin, sp.cos)) for i, g in self._angles_of(used)]
        expr = sp.Add(
            *(
                self._to_expr(self.ring({others: QQ(1)}))
                * sp.Add(
                    *(
                        QQ.to_sympy(c)
                        / content
                        * sp.Mul(*(s**i * z**j for (s, z), (i, j) in zip(waves, powers, strict=True)))
                        for powers, c in of_angles.items()
                    )
                )
                for others, of_angles in total.items()
            )
        )
        return content, expr, {g: (0, -degrees[i]) for i, g in self._angles_of(used)}

    def _terms(self, base: PolyElement) -> int:
        if not any(base.degree(self.ring.gens[i]) > 0 for i in self._tangents):
            return len(base)
        return len(sp.Add.make_args(self._in_angles(base)[1]))

    def _angles_of(self, indices: list[int]) -> list[tuple[int, sp.Expr]]:
        return [(i, self._tangents[i]) for i in indices]

    def _meanings(self) -> list[sp.Expr]:
        spare = len(self.ring.gens) - len(self.generators)
        return [*self.generators, *[sp.Integer(0)] * spare]

    def _to_expr(self, polynomial: PolyElement) -> sp.Expr:
        return polynomial.as_expr(*self._meanings())


def _factors(polynomial: PolyElement) -> tuple[Any, list[tuple[PolyElement, int]]]:
    """The content, and the irreducible factors with their multiplicities; the rest as one factor where it is large."""
    ring = polynomial.ring
    lowest = tuple(map(min, zip(*polynomial, strict=True)))
    factors = [(generator, power) for generator, power in zip(ring.gens, lowest, strict=True) if power]
    terms = {tuple(a - b for a, b in zip(monomial, lowest, strict=True)): c for monomial, c in polynomial.terms()}
    degrees = list(map(max, zip(*terms, strict=True)))
    used = [i for i, degree in enumerate(degrees) if degree]
    if not used:
        return polynomial.LC, factors
    if len(terms) > MAX_TERMS_TO_FACTOR or math.prod(degrees[i] + 1 for i in used) > MAX_SIZE_TO_FACTOR:
        content, rest = ring(terms).primitive()
        return content, [*factors, (rest, 1)]
    # In the ring of the generators that occur: the cost grows with their number.
    content, small = _factor_list(frozenset((tuple(monomial[i] for i in used), c) for monomial, c in terms.items()))
    for factor, multiplicity in small:
        lifted = {}
        for monomial, c in factor:
            powers = [0] * len(degrees)
            for i, power in zip(used, monomial, strict=True):
                powers[i] = power
            lifted[tuple(powers)] = c
        factors.append((ring(lifted), multiplicity))
    return content, factors


@functools.lru_cache(maxsize=4096)
def _factor_list(terms: frozenset[tuple[tuple[int, ...], Any]]) -> tuple[Any, list[tuple[Any, int]]]:
    """The content and the factors of a polynomial, each as its terms."""
    size = len(next(iter(terms))[0])
    ring = PolyRing([f"x{i}" for i in range(size)], QQ, "lex")
    content, factors = ring(dict(terms)).factor_list()
    return QQ.convert(content), [(tuple(factor.terms()), multiplicity) for factor, multiplicity in factors]


def _generators(polynomial: PolyElement) -> tuple[int, ...]:
    """Of which generators a polynomial is made."""
    return tuple(i for i in range(len(polynomial.ring.gens)) if any(monomial[i] for monomial in polynomial))


@functools.cache
def _homogeneous(degree: int, k: int) -> tuple[tuple[tuple[int, int], Any], ...]:
    """cos(g / 2) ** degree tan(g / 2) ** k: the powers of sine and cosine and their coefficients, of g where the degree
    is even, and of g / 2 where it is odd.
    """
    if degree % 2:
        return (((k, degree - k), QQ(1)),)
    odd = k % 2  # sin(g / 2) cos(g / 2) is sin(g) / 2, and the squares are (1 - cos g) / 2 and (1 + cos g) / 2
    below, above = k // 2, (degree - k) // 2
    powers: dict[int, int] = {}
    for i, j in itertools.product(range(below + 1), range(above + 1)):
        number = (-1) ** i * math.comb(below, i) * math.comb(above, j)
        powers[i + j] = powers.get(i + j, 0) + number
    return tuple(((odd, j), QQ(number, 2 ** (below + above + odd))) for j, number in powers.items() if number)


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


def addition_theorem(first: sp.Expr, second: sp.Expr) -> sp.Expr | None:
    """p sin(a) cos(b) + p cos(a) sin(b) as p sin(a + b), and alike; None where the sum is not that."""
    total = sp.Integer(0)
    for term in (first, second):
        waves = [f for f in sp.Mul.make_args(term) if is_wave(f)]
        if len(waves) != 2:
            return None
        a, b = map(phase, waves)
        total += term / sp.Mul(*waves) / 2 * (sp.cos(sp.expand(a - b, log=False)) + sp.cos(sp.expand(a + b, log=False)))
    total = sp.expand_mul(total)
    return None if total.is_Add else total


def is_wave(*functions: sp.Expr) -> bool:
    """Whether all are sines or cosines."""
    return all(isinstance(f, (sp.sin, sp.cos)) for f in functions)


def phase(wave: sp.Expr) -> sp.Expr:
    """a of cos(a) = wave."""
    return sp.expand(wave.args[0] - sp.pi / 2 if isinstance(wave, sp.sin) else wave.args[0], log=False)


def _with_tangents(expr: sp.Expr) -> sp.Expr:
    """sin(u) / cos(u) as tan(u)."""
    powers = expr.as_powers_dict()
    for sine, power in list(powers.items()):
        cosine = sp.cos(sine.args[0]) if isinstance(sine, sp.sin) else None
        if cosine in powers and (power * powers[cosine]).is_negative:
            common = min(power, -powers[cosine], key=abs)
            expr = expr * cosine**common * sine**-common * sp.tan(sine.args[0]) ** common
    return expr


class _Basis:
    """Of a set of arguments: generators of which each is a sum of whole multiples."""

    def __init__(self) -> None:
        self._arguments: dict[sp.Expr, dict[sp.Expr, sp.Rational]] = {}
        self.generators: list[sp.Expr] = []
        self._multiples: dict[sp.Expr, list[tuple[sp.Expr, int]]] = {}
        self._quarter_turns: dict[sp.Expr, int] = {}

    def add(self, argument: sp.Expr, quarter_turns: bool = False) -> None:
        """Take an argument into the set, up to multiples of pi / 2 with ``quarter_turns``."""
        terms: dict[sp.Expr, sp.Rational] = {}
        short = argument.is_polynomial(t) or operations(argument) <= MAX_ARGUMENT
        for term in sp.Add.make_args(sp.expand(argument) if short else argument):
            number, monomial = term.as_coeff_Mul(rational=True)
            terms[monomial] = terms.get(monomial, sp.Integer(0)) + number
        if quarter_turns:  # so that pi / 2 - a is a multiple of the same generator as a
            turns = int(sp.floor(2 * terms.get(sp.pi, 0) + sp.Rational(1, 2)))
            terms[sp.pi] = terms.get(sp.pi, sp.Integer(0)) - sp.Rational(turns, 2)
            self._quarter_turns[argument] = turns
        self._arguments[argument] = {monomial: number for monomial, number in terms.items() if number}
        self._multiples[argument] = []

    def settle(self) -> None:
        """Choose the generators: one for the common direction where all arguments have one, else for each monomial; and
        several where a common one would have large multiples. Where a monomial is large, one for each direction if
        these are independent: exp(-5000 (t - 1/2)^2) is not written with exp(5000 t), which overflows.
        """
        directions: dict[tuple[tuple[sp.Expr, sp.Rational], ...], dict[sp.Expr, sp.Rational]] = {}
        for argument, terms in self._arguments.items():
            if terms:
                direction = _direction(terms)
                directions.setdefault(direction, {})[argument] = terms[direction[0][0]]
        is_large = any(
            abs(value(number * monomial, sp.Rational(1, 2))) > MAX_EXPONENT
            for terms in self._arguments.values()
            for monomial, number in terms.items()
        )
        if len(directions) == 1 or (is_large and _independent(directions)):
            for numbers in directions.values():
                for group in _commensurate(numbers):
                    first = min(group, key=lambda argument: (abs(group[argument]), sp.count_ops(argument)))
                    if turns := self._quarter_turns.get(first, 0):
                        self._settle(
                            group, sp.expand((first - turns * sp.pi / 2) / group[first], log=False), sp.Integer(1)
                        )
                    else:
                        self._settle(group, first / group[first], sp.sign(group[first]))
            return
        for monomial in sorted({m for terms in self._arguments.values() for m in terms}, key=_spelled):
            numbers = {argument: terms[monomial] for argument, terms in self._arguments.items() if monomial in terms}
            for group in _commensurate(numbers):
                self._settle(group, monomial, sp.Integer(1))

    def _settle(self, group: dict[sp.Expr, sp.Rational], unit: sp.Expr, sign: sp.Rational) -> None:
        whole = _primitive(group.values()) * sign
        self.generators.append(whole * unit)
        for argument, number in group.items():
            self._multiples[argument].append((whole * unit, int(number / whole)))

    def reverse(self, chosen: Callable[[sp.Expr], bool]) -> None:
        """Take -g for each generator g that is chosen."""
        sides = {g: -1 if chosen(g) else 1 for g in self.generators}
        self.generators = [sides[g] * g for g in self.generators]
        for argument, found in self._multiples.items():
            self._multiples[argument] = [(sides[g] * g, sides[g] * n) for g, n in found]

    def multiples(self, argument: sp.Expr) -> list[tuple[sp.Expr, int]] | None:
        """The argument as a sum of whole multiples of generators; None where it is not in the set."""
        if argument not in self._multiples and -argument in self._multiples:  # tanh(u) is made of exp(u) and exp(-u)
            return [(generator, -multiple) for generator, multiple in self._multiples[-argument]]
        return self._multiples.get(argument)

    def quarter_turns(self, argument: sp.Expr) -> int:
        """How many times pi / 2 the argument is beside that sum, modulo 4."""
        return self._quarter_turns[argument] % 4


@functools.lru_cache(maxsize=8192)
def _spelled(expr: sp.Expr) -> str:
    """By which expressions have an order."""
    return str(expr)


def _direction(terms: dict[sp.Expr, sp.Rational]) -> tuple[tuple[sp.Expr, sp.Rational], ...]:
    ordered = sorted(terms.items(), key=lambda item: _spelled(item[0]))
    first = ordered[0][1]
    return tuple((monomial, number / first) for monomial, number in ordered)


def _independent(directions: Iterable[tuple[tuple[sp.Expr, sp.Rational], ...]]) -> bool:
    """Whether none is a sum of multiples of others."""
    rows = list(map(dict, directions))
    monomials = {monomial for row in rows for monomial in row}
    return bool(sp.Matrix([[row.get(m, 0) for m in monomials] for row in rows]).rank() == len(rows))


def _commensurate(numbers: dict[sp.Expr, sp.Rational]) -> list[dict[sp.Expr, sp.Rational]]:
    """In groups of which all are small multiples of one number."""
    groups: list[dict[sp.Expr, sp.Rational]] = []
    for argument, number in sorted(numbers.items(), key=lambda item: (abs(item[1]), _spelled(item[0]))):
        for group in groups:
            together = [*group.values(), number]
            if max(map(abs, together)) <= MAX_MULTIPLE * _primitive(together):
                group[argument] = number
                break
        else:
            groups.append({argument: number})
    return groups


def _primitive(numbers: Iterable[sp.Rational]) -> sp.Rational:
    """The largest rational of which all are whole multiples."""
    numbers = list(numbers)
    return sp.Rational(sp.igcd(*(n.p for n in numbers), 0), sp.ilcm(*(n.q for n in numbers), 1))


def _exponent(expr: sp.Expr) -> sp.Expr:
    """u of an expression that is exp(u)."""
    if expr == sp.E:
        return sp.Integer(1)
    if isinstance(expr, sp.exp):
        return expr.args[0]
    return expr.exp * sp.log(expr.base)
