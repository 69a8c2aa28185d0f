"""What the property tests draw: paths of the library and of users, inner times, numbers."""

from hypothesis import strategies as st

import interpolants as ip

USER_PATHS = [
    ("t**2", "1-t"),
    ("sqrt(t)", "sqrt(1-t)"),
    ("t", "sqrt(1-t**2)"),
    ("sin(pi*t/2)**2", "cos(pi*t/2)**2"),
    ("(1-exp(-3*t))/(1-exp(-3))", "(1-t)*exp(-t)"),
    ("1", "80*(1-t)+0.002"),
]
LIBRARY = [ip.linear(), ip.gvp(), ip.vp()]
PATHS = [*LIBRARY, *(ip.Path(alpha, sigma) for alpha, sigma in USER_PATHS)]


def paths():
    return st.sampled_from(PATHS)


def quantities():
    return st.sampled_from(ip.QUANTITIES)


inner_times = st.floats(0.05, 0.95)
real = st.floats(-3.0, 3.0)
stds = st.floats(0.1, 3.0)
