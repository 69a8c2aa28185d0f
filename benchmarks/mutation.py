"""Mutation testing: how many small faults in ``interpolants`` do the tests notice?

    python benchmarks/mutation.py expression limits --jobs 2

Each mutant is one change of one module: another operator, a factor dropped, a constant off by one, swapped arguments,
a branch the other way round. Its tests run in a process forked from one that has imported torch and sympy, but none of
``interpolants``; the changed module is compiled from the tree in memory, so no file is written. The tests are those
that a first run, traced, saw execute the changed line, then the rest of the file that mirrors the module; the first
failure ends the run. A survivor is a fault that the tests do not notice, or no fault: the last word is a reader's.

Texts of error messages, annotations and zip's strict=, an assertion, are not changed. Decorated functions and constants
of modules are.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import importlib.abc
import importlib.util
import os
import pickle
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "interpolants"
TESTS = ROOT / "tests" / PACKAGE
PRELOADED = ("torch", "sympy", "mpmath", "numpy", "scipy.integrate", "scipy.stats", "hypothesis.strategies", "pytest")
MEMORY = 8 << 30  # bytes of address space: 9**9**9 has no other end


# Mutants

OPERATORS: dict[type[ast.AST], tuple[Any, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.Pow: (ast.Mult,),
    ast.FloorDiv: (ast.Div,), ast.Mod: (ast.Div,), ast.BitOr: (ast.BitAnd,), ast.BitAnd: (ast.BitOr,),
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sin": "cos", "cos": "sin"}


@dataclass
class Mutant:
    """One change: in ``owner.name``, or at ``index`` of that list, ``new`` stands for ``old``."""

    line: int
    last_line: int
    owner: ast.AST
    name: str
    index: int | None
    new: Any
    text: str
    tests: list[str] = field(default_factory=list)

    def apply(self) -> None:
        """Change the tree that the mutant was made from."""
        if self.index is None:
            setattr(self.owner, self.name, self.new)
        else:
            getattr(self.owner, self.name)[self.index] = self.new


def alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the place of ``node``."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            for other in OPERATORS.get(type(op), ()):
                yield ast.BinOp(left, other(), right)
            yield from (left, right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(OPERATORS[type(op)][0](), values)
            yield from (ast.BoolOp(op, values[:i] + values[i + 1 :]) for i in range(len(values)) if len(values) > 2)
            yield from values if len(values) == 2 else ()
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=operand):
            yield operand
        case ast.Compare(left=left, ops=[op, *rest], comparators=comparators):
            yield from (ast.Compare(left, [other(), *rest], comparators) for other in OPERATORS[type(op)])
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1 if isinstance(value, int) else value * 1.5 if value else 0.5)
        case ast.Constant(value=str() as value):
            yield ast.Constant(value + "_")
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body)
        case ast.Name(id=name) if name in NAMES:
            yield ast.Name(NAMES[name], ast.Load())
        case ast.Attribute(value=value, attr=name) if name in NAMES:
            yield ast.Attribute(value, NAMES[name], ast.Load())
        case ast.Call(func=func, args=args, keywords=keywords):
            if len(args) >= 2 and not any(isinstance(a, ast.Starred) for a in args[:2]):
                yield ast.Call(func, [args[1], args[0], *args[2:]], keywords)
            dropped = [i for i, keyword in enumerate(keywords) if keyword.arg != "strict"]
            yield from (ast.Call(func, args, keywords[:i] + keywords[i + 1 :]) for i in dropped)
        case ast.If(test=test, body=body, orelse=orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield ast.Pass()
        case ast.Match(subject=subject, cases=cases):
            yield from (ast.Match(subject, cases[:i] + cases[i + 1 :]) for i in range(len(cases)) if len(cases) > 1)
        case ast.comprehension(target=target, iter=values, ifs=[_, *rest], is_async=is_async):
            yield ast.comprehension(target, values, rest, is_async)


def skipped(node: ast.AST, owner: ast.AST, name: str) -> bool:
    """Annotations, type aliases, imports, decorators, docstrings and the texts of messages stay as they are."""
    if name in {"annotation", "returns", "decorator_list", "bases", "patterns"} or isinstance(node, ast.pattern):
        return True
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
        return True
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
        return True
    if isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation):
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func) in {"TypeVar", "cast", "warnings.warn"}


def mutants(tree: ast.AST, in_raise: bool = False, first: int = 0, last: int = 0) -> Iterator[Mutant]:
    """Every mutant of a syntax tree, in the order of the source."""
    for name, value in ast.iter_fields(tree):
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or skipped(node, tree, name):
                continue
            # A traced line is that of a statement or of a part of it: a change belongs to its own lines, and a
            # compound statement to its head alone.
            start = getattr(node, "lineno", first)
            end = getattr(node, "end_lineno", last)
            if isinstance(node, ast.stmt) and hasattr(node, "body"):
                end = start
            text_only = in_raise and isinstance(node, ast.Constant) and isinstance(node.value, str)
            if not text_only:
                for new in alternatives(node):
                    what = f"{_short(node)}  ->  {_short(new)}"
                    # A copy, since a mutant that drops an operand shares the other with its original.
                    yield Mutant(start, end, tree, name, index, ast.copy_location(copy.copy(new), node), what)
            yield from mutants(node, in_raise or isinstance(node, ast.Raise), start, end)


def _short(node: ast.AST) -> str:
    if isinstance(node, (ast.If, ast.Match)):
        return "if " + ast.unparse(node.test) if isinstance(node, ast.If) else f"match of {len(node.cases)} cases"
    text = " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())
    return text if len(text) <= 100 else text[:97] + "..."


# Running the tests of a mutant


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module of the package from code in memory."""

    def __init__(self, module: str, code: CodeType) -> None:
        self.name, self.code = f"{PACKAGE}.{module}", code

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, _source(fullname.split(".")[1]), loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


class Chosen:
    """The pytest plugin that runs the chosen tests in the chosen order, and hypothesis without shrinking."""

    def __init__(self, tests: list[str], mirror: str) -> None:
        self.order = {test: i for i, test in enumerate(tests)}
        self.mirror = mirror

    def pytest_collection(self) -> None:
        import hypothesis

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutation", hypothesis.settings(), phases=phases)
        hypothesis.settings.load_profile("mutation")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        wanted = [item for item in items if item.nodeid in self.order or item.nodeid.startswith(self.mirror + "::")]
        items[:] = sorted(wanted, key=lambda item: self.order.get(item.nodeid, len(self.order)))


class Ends:
    """The pytest plugin that ends the process at the first failure, without the ceremony of an end."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os._exit(1)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            os._exit(1)


class Recorder:
    """The pytest plugin that notes which lines of the package each test executes, and how long it takes."""

    def __init__(self) -> None:
        self.lines: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.current = ""
        self.prefix = str(ROOT / PACKAGE) + os.sep

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.current, self.start = nodeid, time.perf_counter()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.seconds[nodeid], self.current = time.perf_counter() - self.start, ""

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """For sys.settrace: lines of the package, and nothing elsewhere."""
        if not frame.f_code.co_filename.startswith(self.prefix):
            return None
        seen, file = self.lines[self.current], Path(frame.f_code.co_filename).stem

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            seen.add((file, frame.f_lineno))
            return line

        return line(frame, event, argument)


def _source(module: str) -> Path:
    return ROOT / PACKAGE / f"{module}.py"


def _pytest(files: list[str], *plugins: object) -> int:
    import pytest

    without = ("xdist", "timeout", "unraisableexception", "threadexception", "cacheprovider", "logging", "doctest")
    options = ["-x", "-q", "--tb=no", "--assert=plain", "-W", "ignore", *(f"-pno:{name}" for name in without)]
    return int(pytest.main([*options, *files], plugins=list(plugins)))


def _require_passed(code: int, files: list[str]) -> None:
    if code != 0:
        raise SystemExit(f"The tests fail without any mutant: pytest {' '.join(files)} gave {code}.")


def warm(files: list[str]) -> None:
    """Run the tests once and forget all modules of the tree: what remains are sympy's caches, which forks share."""
    before = set(sys.modules)
    sys.modules["jax"] = None  # type: ignore[assignment]  # its threads do not survive a fork: tests skip it here
    screen = os.dup(1)
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)
    code = _pytest(files)
    os.dup2(screen, 1)
    del sys.modules["jax"]
    _require_passed(code, files)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(ROOT) and ".venv" not in file:
            del sys.modules[name]
    gc.collect()
    gc.freeze()  # so that a fork's collections neither look at nor copy what is there


def _forked(work: Any) -> int:
    """The process id of a fork that does ``work``, silently, and exits with what it returns."""
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 3
    try:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(silence, descriptor)
        code = work()
    finally:
        os._exit(code)


def record(files: list[str]) -> Recorder:
    """One traced run of all tests."""
    reading, writing = os.pipe()

    def work() -> int:
        recorder = Recorder()
        sys.settrace(recorder.trace)
        code = _pytest(files, recorder)
        sys.settrace(None)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump((code, dict(recorder.lines), recorder.seconds), pipe)
        return code

    pid = _forked(work)
    os.close(writing)
    recorder = Recorder()
    with os.fdopen(reading, "rb") as pipe:
        code, lines, recorder.seconds = pickle.load(pipe)
    os.waitpid(pid, 0)
    _require_passed(code, files)
    recorder.lines.update(lines)
    return recorder


def start(module: str, tree: ast.Module, mutant: Mutant, mirror: str, limit: int) -> int:
    """Run the tests of a mutant in a fork, which exits with 0 if they pass."""

    def work() -> int:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        # Time of the processor, which other programs do not lengthen; by the clock only what waits for ever is ended.
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        signal.alarm(10 * limit)
        mutant.apply()
        code = compile(ast.fix_missing_locations(tree), str(_source(module)), "exec")
        sys.meta_path.insert(0, Changed(module, code))
        files = list(dict.fromkeys([*([mirror] if mirror else []), *(test.split("::")[0] for test in mutant.tests)]))
        return _pytest(files, Chosen(mutant.tests, mirror), Ends()) if files else 0

    return _forked(work)


def main() -> None:
    """Measure the modules named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="such as expression; all, where none is named")
    parser.add_argument("--tests", nargs="*", default=[str(TESTS.relative_to(ROOT))], help="files that may notice")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="test each n-th mutant only")
    parser.add_argument("--lines", default="", help="a range of lines, such as 40-80")
    parser.add_argument("--again", type=Path, default=None, help="test only the survivors in this file of --out")
    parser.add_argument("--out", type=Path, default=None, help="a file for the survivors, besides the screen")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "SYMPY_CACHE_SIZE": "None"}
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    for name in PRELOADED:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)

    modules = options.modules or sorted(p.stem for p in (ROOT / PACKAGE).glob("*.py") if p.stem != "__init__")
    warm(options.tests)
    recorder = record(options.tests)
    print(f"{len(recorder.seconds)} tests in {sum(recorder.seconds.values()):.0f} s, traced", flush=True)
    for module in modules:
        report = measure(module, recorder, options)
        if options.out:
            with options.out.open("a") as file:
                file.write(report + "\n")


def measure(module: str, recorder: Recorder, options: argparse.Namespace) -> str:
    """Test every mutant of a module; print and return the survivors and the share of the others."""
    tree = ast.parse(_source(module).read_text())
    low, _, high = options.lines.partition("-")
    found = [m for m in mutants(tree) if not low or int(low) <= m.line <= int(high or low)][:: options.every]
    if options.again:
        survivors = set(options.again.read_text().splitlines())
        found = [m for m in found if described(module, m) in survivors]
    by_line: dict[int, set[str]] = defaultdict(set)
    for test, lines in recorder.lines.items():
        for file, line in lines:
            if file == module:
                by_line[line].add(test)
    mirror_file = TESTS / f"test_{module}.py"
    mirror = str(mirror_file.relative_to(ROOT)) if mirror_file.exists() else ""
    begun = time.perf_counter()
    running: dict[int, Mutant] = {}
    outcome: dict[str, list[Mutant]] = {"killed": [], "timed out": [], "survived": []}

    def reap() -> None:
        pid, status = os.waitpid(-1, 0)
        by_time = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM)
        passed = os.WIFEXITED(status) and os.WEXITSTATUS(status) in (0, 5)
        mutant = running.pop(pid)
        outcome["timed out" if by_time else "survived" if passed else "killed"].append(mutant)
        if passed:
            print(described(module, mutant), flush=True)

    for mutant in found:
        tests = set().union(*(by_line[line] for line in range(mutant.line, mutant.last_line + 1)))
        if tests == {""}:  # executed by the import alone: any test of the module may depend on it
            tests = set().union(*by_line.values())
        tests.discard("")
        own = {test for test in tests if mirror and test.startswith(mirror + "::")}
        mutant.tests = sorted(tests, key=lambda test: (test not in own, recorder.seconds[test]))
        if len(running) >= options.jobs:
            reap()
        limit = int(20 + 3 * sum(recorder.seconds[test] for test in tests))
        running[start(module, tree, mutant, mirror, limit)] = mutant
    while running:
        reap()
    seconds = time.perf_counter() - begun
    noticed = len(found) - len(outcome["survived"])
    score = (
        f"{module}: {noticed} of {len(found)} mutants noticed ({100 * noticed / max(1, len(found)):.1f} %), "
        f"{len(outcome['timed out'])} of them by time; {seconds:.0f} s, {seconds / max(1, len(found)):.2f} s each"
    )
    print(score, flush=True)
    report = sorted(outcome["survived"], key=lambda mutant: mutant.line)
    return "\n".join([*(described(module, mutant) for mutant in report), score])


def described(module: str, mutant: Mutant) -> str:
    """Where a mutant is and what it changes."""
    return f"{PACKAGE}/{module}.py:{mutant.line}: {mutant.text}"


if __name__ == "__main__":
    main()
