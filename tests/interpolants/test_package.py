"""What importing the package brings along, and what its public names say of themselves."""

import inspect
import subprocess
import sys

import interpolants as ip


def test_importing_interpolants_imports_no_training_dependency():
    code = """
import sys, torch, sympy, numpy
before = {name.split('.')[0] for name in sys.modules}
import interpolants
print(*{name.split('.')[0] for name in sys.modules} - before)
"""
    added = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    third_party = set(added) - set(sys.stdlib_module_names)
    assert third_party <= {"interpolants", "mpmath"}


def test_every_public_name_is_documented():
    for name in ip.__all__:
        member = getattr(ip, name)
        if inspect.isclass(member):
            methods = [m for n, m in inspect.getmembers(member, inspect.isfunction) if not n.startswith("_")]
            assert all(m.__doc__ for m in [member, *methods]), name
        elif callable(member) or inspect.ismodule(member):
            assert member.__doc__, name
