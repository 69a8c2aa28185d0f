"""The explorer without a browser: its numbers against closed forms and scipy; hostile text; bounded time."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from html import escape, unescape

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import interpolants as ip
from interpolants import explorer
from interpolants.explorer import app, figures, guard, page, simulation, work
from interpolants.explorer.deadline import OverdueError, Workers
from interpolants.explorer.report import TIMES, report

INSIDE = slice(1, -1)
t = TIMES[INSIDE]
MEANS = 2 * np.array([[np.cos(a), np.sin(a)] for a in np.pi / 2 + 2 * np.pi * np.arange(5) / 5])
STDS, WEIGHTS = np.array([0.22, 0.3, 0.38, 0.3, 0.22]), np.array([0.3, 0.2, 0.15, 0.15, 0.2])
SLOW = "t**sin(t**t)", "(1-t)**cos(t**t)"
"""A path whose formulas take seconds."""


@pytest.fixture(scope="module")
def described():
    """Of alpha = t^2, sigma = 1 - t, whose quantities are written by hand below."""
    return report(ip.Path("t**2", "1-t"))


@pytest.fixture(scope="module")
def flowed():
    return simulation.flow(ip.linear())


@pytest.fixture(scope="module")
def measured():
    return simulation.errors(ip.linear())


@pytest.fixture(scope="module")
def workers():
    with Workers(2) as started:
        yield started


def velocity(x, time):
    """Of the mixture on the linear path, by the formula of a conditional mean; x has shape (n, 2)."""
    variance = time**2 * STDS**2 + (1 - time) ** 2
    from_centre = x[:, None, :] - time * MEANS
    density = WEIGHTS * np.exp(-(from_centre**2).sum(-1) / (2 * variance)) / variance
    share = density / density.sum(1, keepdims=True)
    moved = MEANS + ((time * STDS**2 - (1 - time)) / variance)[:, None] * from_centre
    return (share[:, :, None] * moved).sum(1)


def carried_by_scipy(start):
    flat = solve_ivp(
        lambda time, y: velocity(y.reshape(-1, 2), time).ravel(), (0, 1), start.ravel(), method="DOP853",
        rtol=1e-11, atol=1e-12,
    )  # fmt: skip
    return flat.y[:, -1].reshape(-1, 2)


# Numbers


def test_the_functions_are_those_of_the_path_by_hand(described):
    wronskian = 2 * t * (1 - t) + t**2
    expected = {
        "alpha": t**2, "sigma": 1 - t, "d_alpha": 2 * t, "d_sigma": -np.ones_like(t), "wronskian": wronskian,
        "log_snr": 2 * np.log(t**2 / (1 - t)),
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(described, name).values[INSIDE], values, rtol=1e-12, err_msg=name)
    f, g_squared = described.forward
    np.testing.assert_allclose(f.values[INSIDE], -2 / t, rtol=1e-12)
    np.testing.assert_allclose(g_squared.values[INSIDE], 2 * (1 - t) * wronskian / t**2, rtol=1e-12)
    choices = {choice.name: choice.values[INSIDE] for choice in described.choices}
    np.testing.assert_allclose(choices["sigma"], 2 * (1 - t), rtol=1e-12)
    np.testing.assert_allclose(choices["kl_optimal"], g_squared.values[INSIDE], rtol=1e-12)
    a, b, w = described.sde  # v + sigma score, score = (alpha v - alpha' x) / (sigma W)
    np.testing.assert_allclose(a.values[INSIDE], -2 * t / wronskian, rtol=1e-12)
    np.testing.assert_allclose(b.values[INSIDE], 1 + t**2 / wronskian, rtol=1e-12)
    np.testing.assert_allclose(w.values[INSIDE], 2 * (1 - t), rtol=1e-12)


def test_each_conversion_carries_the_row_of_the_source_to_that_of_the_target(described):
    rows = {"velocity": (2 * t, -1.0), "score": (0.0, -1 / (1 - t)), "noise": (0.0, 1.0), "data": (1.0, 0.0)}
    assert len(described.conversions) == 12
    for (source, target), conversion in described.conversions.items():
        a, b = conversion.a.values[INSIDE], conversion.b.values[INSIDE]
        for x, given, wanted in zip((t**2, 1 - t), rows[source], rows[target], strict=True):
            np.testing.assert_allclose(a * x + b * given, wanted * np.ones_like(t), atol=1e-9)


def test_ends_are_exact_and_poles_have_their_order(described):
    conversion = described.conversions["velocity", "score"]  # b = t^2 / ((1 - t) (2 t - t^2))
    assert [end.limit for end in conversion.b.ends] == ["0", r"\infty"]
    assert conversion.b.ends[0].behaviour == ""
    assert conversion.b.ends[1].behaviour == r"\sim \frac{1}{{(1 - t)}}, \ \text{order } 1"
    assert described.conversions["noise", "data"].b.ends[0].behaviour == r"\sim - \frac{1}{t^{2}}, \ \text{order } 2"
    assert [end.value for end in described.log_snr.ends] == [-np.inf, np.inf]
    assert "slower than any power" in described.log_snr.ends[0].behaviour
    assert described.conversions["velocity", "data"].formula == r"{\,\text{data}\,} = \frac{v \left(1 - t\right)}" + (
        r"{t \left(2 - t\right)} + \frac{x_{t}}{t \left(2 - t\right)}"
    )


def test_particles_of_the_ode_end_where_scipy_carries_them(flowed):
    assert np.sqrt(((flowed.ode[-1] - carried_by_scipy(flowed.ode[0])) ** 2).sum(1).mean()) < 5e-3
    np.testing.assert_allclose(flowed.centres, flowed.times[:, None, None] * MEANS, atol=1e-12)
    np.testing.assert_allclose(
        flowed.radii, 2 * np.sqrt((flowed.times[:, None] * STDS) ** 2 + (1 - flowed.times[:, None]) ** 2), rtol=1e-12
    )


@pytest.mark.parametrize("name", ["linear", "ve"])
def test_particles_have_the_law_of_the_mixture_for_every_w(name, flowed):
    """The share near a centre is binomial; within two standard deviations of one of them are 1 - e^-2 of all."""
    flow = flowed if name == "linear" else simulation.flow(ip.by_name(name), "constant")
    for points in (flow.ode[-1], *flow.sde[:, -1]):
        distances = np.linalg.norm(points[:, None] - MEANS, axis=2)
        nearest = np.bincount(distances.argmin(1), minlength=5) / len(points)
        assert np.abs(nearest - WEIGHTS).max() < 4.5 * np.sqrt(0.25 / len(points))
        inside = (distances < 2 * STDS).any(1).mean()
        assert abs(inside - (1 - np.exp(-2))) < 4.5 * np.sqrt(0.12 / len(points))


def test_noise_makes_the_paths_of_particles_rough_in_proportion(flowed):
    """Over a frame of length h the squared increments of a path add up to 2 w h, whatever its drift."""
    middle = slice(10, 31)
    h = flowed.times[1] - flowed.times[0]
    for scale, states in zip(simulation.SCALES, flowed.sde, strict=True):
        rough = np.diff(states[middle], axis=0)
        rough = rough - rough.mean(1, keepdims=True)
        expected = 2 * scale * 2 * (1 - flowed.times[middle]).mean() * h
        assert 0.8 < (rough**2).sum(2).mean() / expected < 1.6


def test_errors_of_solvers_are_distances_to_what_scipy_finds(measured):
    """Euler and Heun by hand, from the same starting points."""
    start = simulation.MIXTURE.sample_at(64, 0.0, ip.linear(), simulation.torch.Generator().manual_seed(0)).numpy()
    exact = carried_by_scipy(start)
    solvers = {solver.solver: solver for solver in measured.solvers}
    for position, count in enumerate(simulation.NUM_STEPS):
        h, euler, heun = 1 / count, start, start
        for n in range(count):
            euler = euler + h * velocity(euler, n * h)
            first = velocity(heun, n * h)
            heun = heun + h / 2 * (first + velocity(heun + h * first, (n + 1) * h))
        for name, end in (("Euler", euler), ("Heun", heun)):
            distance = np.sqrt(((end - exact) ** 2).sum(1).mean())
            assert solvers[name].errors[position] == pytest.approx(distance, rel=1e-3), (name, count)
    assert measured.floor < 1e-7
    assert measured.interval == (0.0, 1.0)


def test_slopes_are_the_orders_of_the_methods(measured):
    orders = {"Euler": 1, "Heun": 2, "Runge-Kutta 4": 4, "DDIM": 1, "multistep 2, velocity": 2, "multistep 3, data": 3}
    slopes = {solver.solver: solver.slope for solver in measured.solvers}
    for name, order in orders.items():
        assert abs(slopes[name] + order) < 0.35, (name, slopes[name])


def test_solvers_are_measured_where_the_velocity_is_infinite_at_an_end():
    """On alpha = sqrt(t) the reference is accurate all the same: solvers that see no pole converge to it."""
    errors = simulation.errors(ip.Path("sqrt(t)", "sqrt(1-t)"))
    assert 0 < errors.interval[0] < errors.interval[1] < 1
    assert errors.floor < 1e-4
    multistep = next(solver for solver in errors.solvers if solver.solver == "multistep 3, data")
    assert multistep.errors[-1] < 0.05


def test_a_path_in_the_papers_time_is_refused(tmp_path):
    with pytest.raises(ValueError, match="explorer: path must have data at t = 1"):
        explorer.write_html(ip.linear().in_paper_time(), tmp_path / "page.html")
    with pytest.raises(ValueError, match=r"w: .* must be finite and >= 0"):
        explorer.write_html(ip.linear(), tmp_path / "page.html", w="-t")
    assert not list(tmp_path.iterdir())


# Figures and pages


def test_curves_are_drawn_as_they_are_and_poles_have_triangles(described):
    conversion = described.conversions["velocity", "score"]  # a = -2 / ((1 - t) (2 - t)), b = -t a / 2
    a, a_pole, b, pole = figures.conversion(conversion.a, conversion.b).data
    np.testing.assert_array_equal(a.y[:-1], conversion.a.values[:-1])
    np.testing.assert_array_equal(b.y[:-1], conversion.b.values[:-1])
    assert np.isnan(b.y[-1])
    assert (a_pole.x, a_pole.marker.symbol) == ((1.0,), "triangle-down")
    assert (pole.x, pole.marker.symbol) == ((1.0,), "triangle-up")
    assert (pole.marker.color, a.line.color) == (b.line.color, "#0072B2")
    functions, ratio, gains, noise = (figure.data for figure in figures.overview(described))
    assert [trace.name for trace in functions] == ["\N{GREEK SMALL LETTER ALPHA}", "\N{GREEK SMALL LETTER SIGMA}"]
    assert [trace.marker.symbol for trace in ratio[1:]] == ["triangle-down", "triangle-up"]
    assert [trace.name for trace in gains if trace.name] == ["W", "|b| to data", "|b| to noise", "|b| to score"]
    lines = [trace.line for trace in noise if trace.mode == "lines"]
    assert len({(line.color, line.dash) for line in lines}) == len(lines) == len(ip.diffusion.CHOICES)


def test_the_ledger_says_each_status_in_words():
    entries = (
        ip.Entry("first", "a = b", "proved", 2),
        ip.Entry("second", "c = d", "bounded", 1, bound=1.5e-9),
        ip.Entry("third <b>", "e = f", "failed", 1, counterexample="1 is not 2"),
    )
    shown = page.ledger(ip.Ledger("p", entries))
    for status in ("proved", "bounded", "failed"):
        assert len(re.findall(rf'class="badge {status}">[^<]*{status}<', shown)) == 2  # in the summary and in its row
    assert "below 1.5e-09" in shown
    assert "1 is not 2" in shown
    assert "third &lt;b&gt;" in shown
    assert shown.count("<math") == 3


def test_the_file_asks_for_nothing_and_holds_all_numbers(flowed, measured, tmp_path, monkeypatch):
    file = tmp_path / "page.html"
    monkeypatch.setattr(simulation, "flow", lambda path, w: flowed)
    monkeypatch.setattr(simulation, "errors", lambda path: measured)
    explorer.write_html(ip.linear(), file)
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_size < 8e6
    assert "default-src 'none'" in text
    markup = text.split("<script>")[0]
    assert not re.findall(r"(?:src|href|url|@import)\s*[=(]", markup)
    assert 'role="tab" id="tab-Ledger"' in markup
    assert len(re.findall(r'class="badge proved">', markup)) == 32
    frames = json.loads(unescape(re.search(r'class="frames">(.*?)</div>', text).group(1)))
    assert frames["shape"] == [41, 256, 2]
    assert frames["scales"] == [0.25, 0.5, 1.0, 2.0, 4.0]


# Text from outside


@pytest.mark.parametrize(
    ("alpha", "sigma"),
    [("1-t", "t"), ("t", "2-t"), ("__import__('os').system('id')", "1-t"), ("t", "(lambda: t)()"), ("t.real", "1-t")],
)
def test_what_is_no_path_gets_the_reason_that_path_gives(alpha, sigma, workers):
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        ip.Path(alpha, sigma)
    name, verdict, *panels = app._Answers(workers).derived(alpha, sigma, "", "sigma")
    assert name == app.OWN
    assert "Not a path" in verdict
    assert escape(str(refused.value)) in verdict
    assert len(panels) == 6
    assert not any("<math" in panel for panel in panels)


@pytest.mark.parametrize("name", ["name", "alpha", "sigma", "self", "E"])
def test_a_parameter_with_a_name_that_is_taken_gets_the_reason(name, workers):
    _, verdict, *_ = app._Answers(workers).derived(f"t**{name}", "1-t", f"{name}=2", "sigma")
    assert "Not a path" in verdict
    assert escape(f"got {name!r}. Rename it.") in verdict


def test_no_field_reaches_eval(workers, tmp_path):
    """Each field in turn holds Python that would write a file, and markup that a browser would run."""
    answers, file = app._Answers(workers), tmp_path / "written"
    attack = f"open({str(file)!r}, 'w') or '<img src=x onerror=alert(1)>'"
    fine = ["t**p", "1-t**p", "p=2", "sigma"]
    for position in range(4):
        texts = [*fine[:position], attack, *fine[position + 1 :]]
        _, verdict, *_ = answers.derived(*texts)
        assert "invalid" in verdict, position
        assert "<img" not in verdict
        for panel in (answers.particles(*texts), answers.solvers(*texts)):
            assert "<img" not in panel
    assert not file.exists()


def test_an_ordinary_text_gets_all_panels(workers):
    answers = app._Answers(workers)
    texts = ("t", "1-t*p", "p=1", "t*(1-t)")
    name, verdict, path, conversions, *_, formulas, proving = answers.derived(*texts)
    assert (name, app._named("t", "1-t"), app._named("t", "1-2*t")) == (app.OWN, "linear", app.OWN)
    assert "A path" in verdict
    assert path.count('class="figure"') == 4
    assert conversions.count('class="figure"') == 12
    assert "<math" in formulas
    assert "Proving" in proving
    assert 'class="frames"' in answers.particles(*texts)
    assert "multistep 3" in answers.solvers(*texts)
    assert answers.ledger(*texts).count('class="badge proved"') == 32


# Time


def test_what_takes_too_long_is_cut_and_the_next_request_works(workers, monkeypatch):
    answers = app._Answers(workers)
    answers.derived("t", "1-t", "", "sigma")  # a process has started
    monkeypatch.setitem(app.SECONDS, "path", 1.5)
    began = time.monotonic()
    _, verdict, *_ = answers.derived(*SLOW, "", "sigma")
    assert time.monotonic() - began < 30
    assert "Stopped after 1.5 s" in verdict
    monkeypatch.setitem(app.SECONDS, "path", 60.0)
    assert "A path" in answers.derived("t", "1-t**3", "", "sigma")[1]


def test_slow_requests_leave_a_process_for_quick_ones(workers):
    """Two requests for ten minutes of work with two processes; quick ones are answered before they are cut."""
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(workers.do, time.sleep, 600, seconds=4, slow=True) for _ in range(2)]
        assert list(pool.map(lambda n: workers.do(pow, 2, n, seconds=60), range(6))) == [1, 2, 4, 8, 16, 32]
        assert not slow[1].done()
        for future in slow:
            with pytest.raises(OverdueError, match="Stopped after 4 s"):
                future.result()


def test_a_process_that_dies_is_replaced_and_an_error_is_handed_on(workers):
    with pytest.raises(OverdueError, match="has ended, with code 3"):
        workers.do(os._exit, 3, seconds=60)
    with pytest.raises(ZeroDivisionError):
        workers.do(divmod, 1, 0, seconds=60)
    assert workers.do(pow, 2, 3, seconds=60) == 8
    with pytest.raises(ValueError, match="count must be at least 2"):
        Workers(1)


def test_nothing_is_left_running():
    with Workers(2) as started:
        while len(started._all) < 2:
            time.sleep(0.01)
        processes = [worker._process for worker in started._all]
    assert all(process.poll() is not None for process in processes)


# The server


def test_the_server_listens_here_alone_and_asks_no_other(monkeypatch):
    asked, connect = [], socket.socket.connect

    def recorded(self, address):
        asked.append(address)
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", recorded)
    with app.serving("t**2", "1-t", {}) as served:
        host, port = re.fullmatch(r"http://([^:]+):(\d+)/", served.url).groups()
        assert host == "127.0.0.1"
        for place, kind in (("/", "text/html"), ("/plotly.js", "text/javascript"), ("/page.js", "text/javascript")):
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            connection.request("GET", place)
            answer = connection.getresponse()
            body = answer.read().decode()
            assert (answer.status, answer.headers["Content-Type"].split(";")[0]) == (200, kind)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
            if place == "/":
                assert "fonts.googleapis" not in body
                assert "t**2" in body
    assert {address[0] for address in asked if isinstance(address, tuple)} <= {"127.0.0.1", "localhost", "::1"}


def request(url, method="GET", place="/", body=None, **headers):
    host, port = re.fullmatch(r"http://([^:]+):(\d+)/", url).groups()
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    connection.request(method, place, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


NOT_SERVED = (
    "upload", "file=/etc/passwd", "file/etc/passwd", "proxy=http://x", "component_server", "run/1", "call/x",
    "stream/x", "upload_progress", "monitoring", "dev/reload", "custom_component/a/b/c/d",
)  # fmt: skip


def test_other_sites_files_and_long_requests_are_refused():
    with app.serving("t", "1-t", {}) as served:
        port = served.url.split(":")[-1].rstrip("/")
        own = f"http://127.0.0.1:{port}"
        join = {"method": "POST", "place": "/gradio_api/queue/join", "body": "{}", "Content_Type": "application/json"}
        assert request(served.url, Host=f"localhost:{port}")[0] == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
            assert request(served.url, Host=host)[0] == 421, host
            assert request(served.url, place="/config", Host=host)[0] == 421
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", f"https://localhost:{port}"):
            assert request(served.url, **join, Origin=origin)[0] == 403, origin
        assert request(served.url, **join, Origin=own)[0] not in (403, 404, 421)
        assert request(served.url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")[0] == 403
        assert request(served.url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link to it
        for place in NOT_SERVED:
            for prefix in ("", "gradio_api/"):
                for method in ("GET", "POST"):
                    assert request(served.url, method, f"/{prefix}{place}", "x")[0] == 404, place
        assert request(served.url, place="/static/../../etc/passwd")[0] in (403, 404)
        assert request(served.url, **join | {"body": "x" * (guard.MAX_BODY + 1)})[0] == 413
        assert request(served.url, **join | {"body": iter([b"x"])})[0] == 411
        assert request(served.url, method="DELETE")[0] == 404


def test_where_it_listens_for_all_it_answers_to_addresses_and_to_no_names_of_others():
    def refused(host, asked):
        return guard.refusal(host, "GET", "/", {"host": asked}) is not None

    assert not refused("0.0.0.0", "192.168.1.7:8000")
    assert refused("0.0.0.0", "evil.example:8000")
    assert not refused("explorer.lan", "explorer.lan:8000")
    assert refused("127.0.0.1", "192.168.1.7:8000")
    assert not refused("127.0.0.1", "[::1]:8000")
    assert not refused("127.0.0.1", f"{socket.gethostname()}:8000")


@pytest.mark.parametrize("port", [0, -1, 65_536, 99_999_999])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(ValueError, match=rf"explorer: port must be in \[1, 65535\], or left out, got {port}"):
        explorer.launch(port=port, browser=False)


# What it needs


def test_importing_the_explorer_imports_no_figures_and_no_server():
    code = "import sys, interpolants.explorer; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"gradio", "plotly", "fastapi", "latex2mathml"} & set(loaded)


@pytest.mark.parametrize("module", ["gradio", "plotly", "latex2mathml"])
def test_without_the_extra_the_error_says_how_to_get_it(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=re.escape('pip install "sit-interpolants[explore]"')) as missing:
        explorer.launch(browser=False)
    assert str(missing.value).startswith(f"explorer: {module} must be installed")
    if module != "gradio":
        with pytest.raises(ImportError, match=module):
            explorer.write_html(ip.linear(), tmp_path / "page.html")


def test_texts_of_the_library_state_its_paths():
    for name in ip.library.LIBRARY:
        alpha, sigma = app._texts(name)
        assert ip.Path(alpha, sigma) == ip.by_name(name)
    assert work.named("vp", None, ()) == "vp"
